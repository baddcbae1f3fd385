"""A device that is not there is refused with what is."""

from __future__ import annotations

import pytest
import torch

from engines.base import EngineError
from engines.device import devices, identity, pick_device


def test_auto_takes_a_device_that_is_there() -> None:
    assert devices()[pick_device("auto").type] >= 1


def test_the_cpu_serves_any_number_of_processes() -> None:
    assert pick_device("cpu", local_rank=63, local_size=64) == torch.device("cpu")


@pytest.mark.parametrize("kind", [k for k, count in devices().items() if not count])
def test_a_missing_device_is_refused_with_those_that_are_there(kind: str) -> None:
    with pytest.raises(EngineError, match=f"'{kind}' is not here; this machine has: .*cpu"):
        pick_device(kind)


def test_an_unknown_device_is_refused_with_the_legal_ones() -> None:
    with pytest.raises(EngineError, match="'gpu' is not known; legal: auto, cuda, xpu, mps, cpu"):
        pick_device("gpu")


@pytest.mark.gpu
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    there = torch.cuda.device_count()
    with pytest.raises(EngineError, match=f"start at most {there}"):
        pick_device("cuda", local_rank=0, local_size=there + 1)


@pytest.mark.gpu
def test_a_process_that_sees_only_its_own_gpu_takes_that(monkeypatch: pytest.MonkeyPatch) -> None:
    # As srun --gpus-per-task=1 lets a task see one; whether two see the same, roll_call finds.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    there = torch.cuda.device_count()
    last = there
    assert pick_device("cuda", local_rank=last, local_size=there + 1) == torch.device("cuda", 0)


@pytest.mark.gpu
def test_a_gpu_has_an_identity_whatever_its_number() -> None:
    assert len(identity(torch.device("cuda", 0))) > 8
    assert identity(torch.device("cpu")) == ""
