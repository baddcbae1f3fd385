"""The worker processes that load batches."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gearshift.models.base import DataError
from gearshift.training.callbacks.base import WorkerDied
from gearshift.training.callbacks.preemption import ignore_ending
from gearshift.training.seeds import derive

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.training.data.samples import MicroBatch, Request, Samples
    from gearshift.training.settings import Loader


# Forked workers share the data of their parent, and need no `__main__` guard. They use
# no device and one thread. On other systems a fork is not safe.
_ENDING_S = 1.0  # Seconds for a worker whose pipe is closed to end
_START = "fork" if sys.platform == "linux" else "spawn"


class RequestLoader:
    """A DataLoader over requests that always ends the workers that it started."""

    def __init__(
        self,
        samples: Samples,
        world: World,
        loader: Loader,
        unused: Sequence[Tensor] = (),
    ):
        """`unused`: tensors that no worker needs; a forked one gives its copy of them back."""
        self._samples = samples
        self.workers = loader.workers
        self._unused: list[Tensor] = []
        if _START == "fork":
            # Pinned memory belongs to CUDA, which a fork cannot use.
            self._unused += [x for x in unused if x.is_cpu and not x.is_pinned()]
        self._world = world
        self._settings = loader
        self._iterator: Any = None

    def begin(self, requests: Iterable[Request], workers: int) -> None:
        """End the workers; the next iteration loads `requests` with new `workers`."""
        self.close()
        loader = self._settings
        self.workers = workers
        start_worker = partial(_start_worker, self._unused)
        self._loader: DataLoader[Any] = DataLoader(
            self._samples,  # type: ignore[arg-type]  # a map-style dataset, but not by number
            batch_size=None,
            sampler=requests,
            num_workers=workers,
            prefetch_factor=loader.prefetch if workers else None,
            persistent_workers=bool(workers) and loader.persistent,
            multiprocessing_context=_START if workers else None,
            worker_init_fn=start_worker if workers else None,
            collate_fn=_unchanged,
            pin_memory=loader.pin_memory and self._world.device.type == "cuda",
            # The default draws from the global generator, which would change other draws.
            generator=torch.Generator().manual_seed(derive(0, "workers", self._world.rank)),
        )
        if workers:
            atexit.register(self.close)

    def __iter__(self) -> Iterator[MicroBatch]:
        # Without the handler of torch, which raises where a worker dies: also in a half update.
        handler = signal.getsignal(signal.SIGCHLD)
        try:
            self._iterator = iter(self._loader)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, handler)
        return self._checked(self._iterator)

    @property
    def _processes(self) -> Sequence[BaseProcess]:
        return getattr(self._iterator, "_workers", ())

    def _checked(self, loaded: Iterable[MicroBatch | DataError]) -> Iterator[MicroBatch]:
        try:
            for micro_batch in loaded:
                if isinstance(micro_batch, DataError):
                    raise micro_batch
                yield micro_batch
        except (EOFError, OSError, RuntimeError):
            # torch raises RuntimeError for a dead worker, which it looks for each five seconds,
            # unless its pipe breaks first.
            self._raise_if_died()
            raise

    def _raise_if_died(self) -> None:
        ended = wait([worker.sentinel for worker in self._processes], _ENDING_S)
        for worker in self._processes:
            if worker.sentinel in ended:
                worker.join(_ENDING_S)  # its files close a moment before it has an exit code
            code = worker.exitcode
            if not code:
                continue
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise WorkerDied(
                f"data-loader worker {worker.pid} died {how}; "
                f"{psutil.virtual_memory().available / 1e9:.3g} GB of memory is free now; "
                "signal 9 usually means out of memory: lower loader.workers or loader.prefetch"
            ) from None

    def close(self) -> None:
        atexit.unregister(self.close)
        end = getattr(self._iterator, "_shutdown_workers", None)
        if end is not None:
            end()
        for worker in self._processes:
            # torch sends SIGTERM to one that does not end, and workers ignore it.
            worker.kill()
            worker.join()
        self._iterator = None  # with its prefetched batches


def _unchanged(loaded: Any) -> Any:
    return loaded


def _start_worker(unused: Sequence[Tensor], _number: int) -> None:
    ignore_ending()
    # A fork shares the pages of its parent. What it holds, the parent must copy before it writes.
    for tensor in unused:
        with suppress(RuntimeError):  # memory that is not torch's
            tensor.untyped_storage().resize_(0)
