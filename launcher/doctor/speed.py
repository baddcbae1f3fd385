"""The speed of this machine: matrix products and copies, on a GPU beside its data sheet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from launcher.doctor.result import Check, ok, warning
from training import throughput
from training.logging.quantities import amount
from training.resources.memory import synchronize

COPY = "copy"
_SLOW = 0.5
"""Of the data sheet; cuBLAS reaches more with large matrices."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_EDGE = {"cpu": 1024}
_LARGE_EDGE = 8192
_COPIED = {"cpu": 2**27}
_LARGE_COPY = 2**30


@dataclass(frozen=True)
class Speed:
    """A measured speed."""

    what: str
    """`matmul bf16` or `copy`."""
    per_s: float
    """FLOP, or bytes read and written."""
    expected: float | None
    """By the data sheet; None: unknown, or a CPU."""

    @property
    def text(self) -> str:
        """`matmul fp32 98.1 GFLOP/s`, on a known GPU with the share of its data sheet."""
        text = f"{self.what} {self._rate(self.per_s)}"
        if self.expected is None:
            return text
        return f"{text} ({self.per_s / self.expected:.0%} of {self._rate(self.expected)})"

    def _rate(self, per_s: float) -> str:
        number = amount(per_s)
        digits = number.rstrip("kMGT")
        return f"{digits} {number[len(digits) :]}{'B' if self.what == COPY else 'FLOP'}/s"


def measure(device: torch.device, seconds: float) -> Iterator[Speed]:
    """The speeds of `device`, each measured for about so many seconds. Computes."""
    sheet = None
    if device.type == "cuda":
        sheet = throughput.find_gpu(torch.cuda.get_device_name(device))
    edge = _EDGE.get(device.type, _LARGE_EDGE)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # fp32, not tf32
    try:
        for name, dtype in _DTYPES.items():
            a, b = (torch.ones(edge, edge, dtype=dtype, device=device) for _ in range(2))
            least = _fastest(lambda a=a, b=b: torch.mm(a, b), device, seconds)  # type: ignore[misc]
            peak = None if sheet is None else sheet.peaks.get(name)
            yield Speed(f"matmul {name}", 2 * edge**3 / least, peak)
    finally:
        torch.set_float32_matmul_precision(before)
    count = _COPIED.get(device.type, _LARGE_COPY)
    source = torch.ones(count, dtype=torch.uint8, device=device)
    goal = torch.empty_like(source)
    least = _fastest(lambda: goal.copy_(source), device, seconds)
    memory = None if sheet is None else sheet.memory_bytes_per_s
    yield Speed(COPY, 2 * count / least, memory)


def _fastest(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The seconds of the fastest call; the first one warms up."""
    call()
    synchronize(device)
    end, least = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end or least == float("inf"):
        began = time.perf_counter()
        call()
        synchronize(device)
        least = min(least, time.perf_counter() - began)
    return least


def check_speed(device: str, speeds: list[Speed]) -> Check:
    """Whether a GPU reaches its data sheet about; a CPU has none."""
    text = ", ".join(speed.text for speed in speeds)
    slow = [one.what for one in speeds if one.expected and one.per_s < _SLOW * one.expected]
    if slow:
        fix = "nvidia-smi -q -d PERFORMANCE,CLOCK,POWER: other programs, heat, a power limit?"
        return warning(f"speed {device}", f"{text}; slow: {', '.join(slow)}", fix)
    return ok(f"speed {device}", text)
