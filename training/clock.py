"""Clocks of what a device computes, which may be far behind the host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Clock(Protocol):
    """Marks moments, and measures later how far apart they were."""

    def mark(self) -> Any: ...

    def has_passed(self, mark: Any) -> bool:
        """Whether `seconds` need not wait for it."""

    def seconds(self, begin: Any, end: Any) -> float: ...

    def release(self, mark: Any) -> None:
        """Use `mark` for another moment."""


class HostClock:
    """For a device that computes while the host waits."""

    def mark(self) -> float:
        return time.perf_counter()

    def has_passed(self, mark: float) -> bool:
        return True

    def seconds(self, begin: float, end: float) -> float:
        return end - begin

    def release(self, mark: float) -> None:
        pass


class DeviceClock:
    """For an asynchronous device: waits for it only when a time is read."""

    def __init__(self, device: torch.device):
        import torch  # not at the top: `compare` reads metrics without it

        self._event = torch.get_device_module(device).Event
        self._free: list[Any] = []

    def mark(self) -> Any:
        event = self._free.pop() if self._free else self._event(enable_timing=True)
        event.record()
        return event

    def has_passed(self, mark: Any) -> bool:
        try:
            return bool(mark.query())
        except RuntimeError:  # of an earlier kernel: the run has failed, and reports that
            return False

    def seconds(self, begin: Any, end: Any) -> float:
        end.synchronize()  # of a pass that has long ended
        seconds: float = begin.elapsed_time(end) / 1000
        return seconds

    def release(self, mark: Any) -> None:
        self._free.append(mark)


def clock_of(device: torch.device) -> Clock | None:
    """The clock of what is computed on `device`; None: there is none for a device of its type."""
    if device.type in ("cuda", "xpu"):
        return DeviceClock(device)
    return HostClock() if device.type == "cpu" else None
