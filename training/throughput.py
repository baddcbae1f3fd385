"""Model FLOPs utilization (MFU), and the peak FLOP/s of known devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

if TYPE_CHECKING:
    import torch

_FILE = Path(__file__).with_name("peak_flops.json")
# The name of a listed chip with one of these has other clocks, or is a part of the chip.
_OTHER = ("MIG", "Laptop", "Max", "Ti", "D")


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU by its data sheet; None: the data sheet has no figure for all variants."""

    name: str
    """All its words must be in what the driver reports."""
    peaks: Mapping[str, float]
    """Dense peaks in FLOP/s by precision, of those that it has.

    Of fp32 (CUDA or vector cores), and of tf32, bf16, fp16 and fp8 with fp32 accumulation (tensor
    or matrix cores; half of the sparse figure where a data sheet gives no other).
    """
    memory_bytes: int | None = None
    memory_bytes_per_s: float | None = None
    link_bytes_per_s: float | None = None
    """To other GPUs of its node, in one direction: half of the figure of most data sheets."""


@cache
def gpus() -> dict[str, Gpu]:
    """The known GPUs by name; the file has them by source."""
    by_source = TypeAdapter(dict[str, list[Gpu]]).validate_json(_FILE.read_bytes())
    return {gpu.name: gpu for gpu in chain.from_iterable(by_source.values())}


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
    flops_per_sample: float,
    samples_per_s: float,
    device: torch.device,
    precision: str,
    world_size: int,
) -> float | None:
    """Model FLOPs utilization in [0, 1]: FLOP/s of the model over the peak of all devices.

    `flops_per_sample` counts forward and backward once, without recomputation; `samples_per_s`
    counts all ranks. `device`: of CUDA; None if its peak is unknown. Source: Chowdhery et al.,
    PaLM, 2022, appendix B.
    """
    import torch

    peak = peak_flops(torch.cuda.get_device_name(device), precision)
    if peak is None:
        return None
    return flops_per_sample * samples_per_s / (peak * world_size)
