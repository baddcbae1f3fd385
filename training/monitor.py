"""Readings of the machine's memory, taken at intervals in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil

from training import cgroup
from training.memory import host_bytes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reading:
    """Use of the machine in percent, None where there is nothing to use, and our own share."""

    ram: float
    """Of main memory; inside a container, of its limit."""
    swap: float | None
    gpu: float | None
    """Of device memory, everybody's use; what our allocator holds in reserve counts as free."""
    host_bytes: int
    """Resident memory of this process."""
    gpu_reserved_bytes: int | None
    """Device memory that our allocator holds, in use or not."""
    gpu_driver_bytes: int | None
    """Device memory in use as the driver counts it, over all processes."""

    def facts(self) -> dict[str, float | int | None]:
        """The numbers by name, for events.jsonl."""
        return asdict(self)


def read_machine(device: torch.device) -> Reading:
    """A reading of this machine and of `device`, taken now."""
    reserved, driver, gpu = _gpu(device)
    return Reading(_ram(), _swap(), gpu, host_bytes(), reserved, driver)


class Monitor:
    """Calls `read` every `every_s` seconds off the training thread, and keeps the newest answer."""

    def __init__(self, read: Callable[[], Reading], every_s: float) -> None:
        self.read = read
        self._every_s = every_s
        self._newest: Reading | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read; the first reading comes after one interval."""
        # A daemon: a run that fails must not wait for its monitor.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def take(self) -> Reading | None:
        """The newest reading, once; None where there was none since the last call."""
        reading, self._newest = self._newest, None
        return reading

    def stop(self) -> None:
        """End the thread, if there is one, and wait for a reading that is under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._newest = self.read()


def _ram() -> float:
    machine = psutil.virtual_memory()
    share = cgroup.memory()
    return share.percent if share is not None and share.limit < machine.total else machine.percent


def _swap() -> float | None:
    machine = psutil.swap_memory()
    share = cgroup.swap()
    if share is not None and share.limit < machine.total:
        return share.percent
    return machine.percent if machine.total else None


def _gpu(device: torch.device) -> tuple[int | None, int | None, float | None]:
    if device.type != "cuda":
        return None, None, None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    spare = reserved - torch.cuda.memory_allocated(device)
    return reserved, total - free, 100 * (total - free - spare) / total
