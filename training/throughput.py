"""Model FLOPs utilization (MFU), and the peak FLOP/s of known devices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_FILE = Path(__file__).with_name("peak_flops.json")
_FORMATS = ("fp32", "tf32", "bf16", "fp16", "fp8")
# The name of a listed chip with one of these has other clocks, or is a part of the chip.
_OTHER = ("MIG", "Laptop", "Max", "Ti", "D")


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU by its data sheet; None: the data sheet has no figure for all variants."""

    name: str
    peaks: Mapping[str, float]
    """Dense peaks in FLOP/s by precision, of those that it has."""
    memory_bytes: int | None
    memory_bytes_per_s: float | None
    link_bytes_per_s: float | None
    """To other GPUs of its node, in one direction."""


@cache
def gpus() -> dict[str, Gpu]:
    """The known GPUs; all words of a name must be in what the driver reports.

    The file has dense peaks in TFLOP/s by source: of fp32 (CUDA or vector cores), and of tf32,
    bf16, fp16 and fp8 with fp32 accumulation (tensor or matrix cores; half of the sparse figure
    where a data sheet gives no other); null or missing: the device lacks the format. Also the
    memory, its bandwidth, and that of the links to other GPUs in both directions together; missing:
    variants differ.
    """
    known = {}
    for devices in json.loads(_FILE.read_text("utf-8")).values():
        for name, facts in devices.items():
            known[name] = Gpu(
                name,
                peaks={key: facts[key] * 1e12 for key in _FORMATS if facts.get(key) is not None},
                memory_bytes=_times(facts.get("memory_gib"), 2**30),
                memory_bytes_per_s=_times(facts.get("memory_gb_per_s"), 1e9),
                link_bytes_per_s=_times(facts.get("link_gb_per_s"), 1e9 / 2),
            )
    return known


def _times(figure: Any, unit: float) -> Any:
    return None if figure is None else figure * unit


def peak_flops(name: str, precision: str) -> float | None:
    """Dense peak in FLOP/s of the device with the driver name `name`; None: unknown."""
    words = f" {' '.join(name.replace('-', ' ').lower().split())} "
    if any(f" {word.lower()} " in words for word in _OTHER):
        return None
    for gpu in gpus().values():
        if f" {gpu.name.lower()} " in words:
            return gpu.peaks.get(precision)
    return None


def mfu(
    flops_per_sample: float | None,
    samples_per_s: float,
    device: torch.device,
    precision: str,
    world_size: int,
) -> float | None:
    """Model FLOPs utilization in [0, 1]: FLOP/s of the model over the peak of all devices.

    `flops_per_sample` counts forward and backward once, without recomputation; `samples_per_s`
    counts all ranks. None if either the model's FLOPs or the device's peak is unknown, as on a
    CPU. Source: Chowdhery et al., PaLM, 2022, appendix B.
    """
    if device.type != "cuda" or flops_per_sample is None:
        return None
    import torch

    peak = peak_flops(torch.cuda.get_device_name(device), precision)
    if peak is None:
        return None
    return flops_per_sample * samples_per_s / (peak * world_size)
