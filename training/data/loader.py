"""Batches on their way to the device: prepared ahead by workers, moved while the host goes on."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.process
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from models.base import DataError
from training.data.samples import MicroBatch, Request, Samples
from training.preempt import ignore_in_worker
from training.seeds import derive

if TYPE_CHECKING:
    from engines.base import World
    from training.data.order import DataOrder
    from training.hooks import Budget
    from training.settings import Loader

# Workers share the data they inherit by a fork, and a script without a `__main__` guard may start
# them; they use no device, and torch keeps them to one thread. Elsewhere a fork is not safe.
_START = "fork" if sys.platform == "linux" else "spawn"


class WorkerDied(RuntimeError):
    """A loader worker ended without a word; the text says by what."""

    def __init__(self, exit_codes: Sequence[int]):
        self.exit_codes = exit_codes
        how = ", ".join(
            f"by signal {-code}" if code < 0 else f"with exit code {code}" for code in exit_codes
        )
        super().__init__(
            f"a loader worker ended {how}; a kill (signal 9) mostly means that memory ran out: "
            "lower loader.workers or loader.prefetch"
        )


class Batches:
    """This rank's micro-batches, step by step; the same for any number of workers."""

    def __init__(
        self,
        samples: Samples,
        order: DataOrder,
        budget: Budget,
        world: World,
        loader: Loader,
        watch: AbstractContextManager[None] | None = None,
    ):
        """Workers start here, and begin with the batches of the step after `budget.first_step`.

        `watch` is entered for as long as a batch is waited for.
        """
        self.waited_s = 0.0
        """Seconds that the last `take` took."""
        self._accumulation = budget.accumulation
        self._device = world.device
        self._source = _Source(samples, _Requests(order, budget, world), world, loader, watch)
        self._arriving = iter(self._source)

    def take(self) -> list[MicroBatch]:
        """The micro-batches of the next step, on the device or on their way there.

        Raises DataError where a sample cannot be used, and RuntimeError where a worker died.
        """
        began = time.perf_counter()
        taken = [_moved(next(self._arriving), self._device) for _ in range(self._accumulation)]
        self.waited_s = time.perf_counter() - began
        return taken

    def close(self) -> None:
        """End the workers."""
        self._source.close()


class EvaluationBatches:
    """This rank's share of a split, in micro-batches that are the same for any number of ranks.

    Each sample counts on one rank, once. Ranks have equally many micro-batches, so that collectives
    inside a forward pass stay matched: one that would be short takes another's, not to be counted.
    """

    def __init__(
        self,
        samples: Samples,
        micro_batch: int,
        world: World,
        loader: Loader,
        watch: AbstractContextManager[None] | None = None,
    ):
        """Raises DataError where the split is empty. `watch` is as in Batches."""
        if not len(samples):
            raise DataError(
                "there is nothing to evaluate on: the split holds no samples\n"
                "  legal    a larger eval.share, or more data"
            )
        batches = -(-len(samples) // micro_batch)
        self._counted = len(range(world.rank, batches, world.size))
        self._device = world.device
        shares = _Shares(len(samples), micro_batch, world)
        self._source = _Source(samples, shares, world, loader, watch)

    def __iter__(self) -> Iterator[tuple[MicroBatch, bool]]:
        """Each micro-batch, on the device, and whether it counts."""
        for number, loaded in enumerate(self._source):
            yield _moved(loaded, self._device), number < self._counted

    def close(self) -> None:
        """End the workers."""
        self._source.close()


class _Requests:
    """What a rank asks for, micro-batch by micro-batch, to the end of the run."""

    def __init__(self, order: DataOrder, budget: Budget, world: World):
        self._order, self._budget, self._world = order, budget, world

    def __iter__(self) -> Iterator[Request]:
        budget, world = self._budget, self._world
        for step in range(budget.first_step, budget.last_step):
            epoch, share = self._order.share(
                step - budget.data_start, world.rank, world.size, budget.micro_batch
            )
            for indices in share:
                yield epoch, indices


class _Shares:
    """What a rank asks for in one evaluation; see EvaluationBatches."""

    def __init__(self, length: int, micro_batch: int, world: World):
        self._length, self._micro_batch, self._world = length, micro_batch, world

    def __iter__(self) -> Iterator[Request]:
        batches = -(-self._length // self._micro_batch)
        rounds = -(-batches // self._world.size)
        for number in range(rounds):
            start = (number * self._world.size + self._world.rank) % batches * self._micro_batch
            yield 0, list(range(start, min(start + self._micro_batch, self._length)))


class _Source:
    """A DataLoader over requests that surely ends the workers it started."""

    def __init__(
        self,
        samples: Samples,
        requests: Iterable[Request],
        world: World,
        loader: Loader,
        watch: AbstractContextManager[None] | None,
    ):
        self._watch = watch or nullcontext()
        workers = loader.workers
        pin_memory = loader.pin_memory
        self._loader: DataLoader[Any] = DataLoader(
            samples,  # type: ignore[arg-type]  # a map, if not from numbers
            batch_size=None,
            sampler=requests,
            num_workers=workers,
            prefetch_factor=loader.prefetch if workers else None,
            persistent_workers=bool(workers) and loader.persistent,
            multiprocessing_context=_START if workers else None,
            worker_init_fn=_start_worker if workers else None,
            collate_fn=_as_it_is,
            pin_memory=pin_memory and world.device.type == "cuda",
            # Otherwise drawn from the global generator, which would disturb what others draw.
            generator=torch.Generator().manual_seed(derive(0, "workers", world.rank)),
        )
        self._iterator: Any = None
        self._workers: set[multiprocessing.process.BaseProcess] = set()
        if workers:
            atexit.register(self.close)

    def __iter__(self) -> Iterator[MicroBatch]:
        before = set(multiprocessing.active_children())
        self._iterator = iter(self._loader)
        alive = {worker for worker in self._workers if worker.is_alive()}
        self._workers = alive | (set(multiprocessing.active_children()) - before)
        return self._sound(self._iterator)

    def _sound(self, loaded: Iterable[MicroBatch | DataError]) -> Iterator[MicroBatch]:
        try:
            arriving = iter(loaded)
            while True:
                with self._watch:
                    micro_batch = next(arriving, None)
                if micro_batch is None:
                    return
                if isinstance(micro_batch, DataError):
                    raise micro_batch
                yield micro_batch
        except (EOFError, OSError) as fault:
            # torch tells of a dead worker by RuntimeError, unless its pipe breaks before.
            if exit_codes := self._exit_codes():
                raise WorkerDied(exit_codes) from fault
            raise

    def _exit_codes(self) -> list[int]:
        """Those of the workers that ended by themselves."""
        ending = wait([worker.sentinel for worker in self._workers], timeout=1.0)
        for worker in self._workers:
            if worker.sentinel in ending:
                worker.join()  # its pipes are closed, but it may not have ended yet
        return [worker.exitcode for worker in self._workers if worker.exitcode]

    def close(self) -> None:
        atexit.unregister(self.close)
        end = getattr(self._iterator, "_shutdown_workers", None)
        if end is not None:
            end()
        for worker in self._workers:
            # torch sends SIGTERM to one that does not end, and that they ignore.
            worker.kill()
            worker.join()
        self._workers.clear()


def _moved(loaded: MicroBatch, device: torch.device) -> MicroBatch:
    if device.type == "cpu":
        return loaded
    return MicroBatch(_on(loaded.batch, device), loaded.weight)


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _on(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on(item, device) for item in value]
    return value


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _start_worker(_number: int) -> None:
    ignore_in_worker()
