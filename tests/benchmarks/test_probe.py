"""The probe counts waits by place and finds the kernels of attention and head."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from torch.autograd import DeviceType

from benchmarks import probe

VOCABULARY = 272


def event(name: str, took: float = 0.0, **more: Any) -> SimpleNamespace:
    """An event of the profiler; by default of an operation on the CPU."""
    values = {
        "name": name,
        "device_type": DeviceType.CPU,
        "self_device_time_total": took,
        "self_cpu_time_total": took,
        "input_shapes": [],
        "kernels": [],
        "is_user_annotation": False,
    }
    return SimpleNamespace(**{**values, **more})


def test_kernels_of_a_gpu_are_named_by_attention_and_by_the_vocabulary() -> None:
    cuda = {"device_type": DeviceType.CUDA}
    gemm = [SimpleNamespace(name="nvjet_gemm", duration=7)]
    gather = [SimpleNamespace(name="indexSelect", duration=20)]
    events = [
        event("pytorch_flash::flash_fwd_kernel", 2e3, **cuda),
        event("fmha_cutlassB", 3e3, **cuda),
        event("nvjet_gemm", 7e3, **cuda),
        event("Optimizer.step", 1e6, is_user_annotation=True, **cuda),
        event("aten::mm", kernels=gemm, input_shapes=[[8, 64], [64, VOCABULARY]]),
        event("aten::mm", kernels=[SimpleNamespace(name="other", duration=9)]),
        event("aten::embedding", kernels=gather, input_shapes=[[VOCABULARY, 64], [8]]),
    ]
    found = probe.kernels(SimpleNamespace(events=lambda: events), True, VOCABULARY)
    assert found == {
        "busy_s": pytest.approx(0.012),
        "attention": ["fmha_cutlassB", "pytorch_flash::flash_fwd_kernel"],
        "head": ["nvjet_gemm"],
    }


def test_waits_are_counted_by_file_and_line() -> None:
    with probe._waits(is_cuda=False) as places:
        for text in (probe.SYNCHRONIZED, "something else", probe.SYNCHRONIZED):
            warnings.warn(text, stacklevel=1)
    ((place, count),) = places.items()
    assert place.startswith("tests/benchmarks/test_probe.py:") and count == 2
