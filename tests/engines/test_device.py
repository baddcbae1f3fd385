"""A device that is not there is refused with what is."""

from __future__ import annotations

import pytest
import torch

from engines.base import EngineError
from engines.device import devices, pick_device


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
def test_more_processes_than_gpus_are_refused() -> None:
    there = torch.cuda.device_count()
    with pytest.raises(EngineError, match=f"start at most {there}"):
        pick_device("cuda", local_rank=0, local_size=there + 1)
