"""Rank 0 works first: the others wait, without a time limit while it makes progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import torch.distributed as dist

_BEAT_S = 1.0
_CPU_SHARE = 0.05
"""Of a core. A rank below it that reads no file is idle or hangs; idle threads of gloo use 0.01."""
_LONGEST_PAUSE_S = 1.0


class Turns:
    """Counts of one piece of work in the store of the ranks: who is done, and signs of progress."""

    def __init__(self, store: dist.Store, name: str, timeout_s: float) -> None:
        """`timeout_s`: without any progress."""
        self._store, self._name, self._timeout_s = store, name, timeout_s

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Count this rank as working; at the end without an error, as done."""
        stopping = threading.Event()
        beats = threading.Thread(target=self._beat, args=(stopping,), name="setup progress", daemon=True)
        beats.start()
        try:
            yield
        finally:
            stopping.set()
            beats.join()
        self._store.add(f"{self._name}/done", 1)

    def wait(self, ranks: int) -> None:
        """Wait until as many ranks are done. Raises TimeoutError if none makes progress."""
        pause, seen, seen_at = 0.001, -1, 0.0
        while (done := self._store.add(f"{self._name}/done", 0)) < ranks:
            if (beats := self._store.add(f"{self._name}/beats", 0)) != seen:
                seen, seen_at = beats, time.monotonic()
            elif time.monotonic() - seen_at > self._timeout_s:
                raise TimeoutError(
                    f"no rank made progress at the {self._name} for {self._timeout_s:g} s, and "
                    f"{done} of {ranks} are done: they use no processor and read no file"
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _beat(self, stopping: threading.Event) -> None:
        before = _work_done()
        while not stopping.wait(_BEAT_S):
            now = _work_done()
            if now[0] - before[0] > _CPU_SHARE * _BEAT_S or now[1] > before[1]:
                with suppress(dist.DistError, RuntimeError):  # this rank ends anyway
                    self._store.add(f"{self._name}/beats", 1)
            before = now


def _work_done() -> tuple[float, int]:
    """Seconds of processor time of this process, and bytes that it read from disks."""
    process = psutil.Process()
    times = process.cpu_times()
    # Not on macOS. Bytes from pipes and /proc do not count.
    read = process.io_counters().read_bytes if hasattr(process, "io_counters") else 0
    return times.user + times.system, read
