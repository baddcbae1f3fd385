"""Batches of training and evaluation: prefetched by workers, copied to the device early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gearshift.models.base import DataError, HasSources
from gearshift.training.callbacks.base import WorkerDied
from gearshift.training.data.samples import DataOrder, MicroBatch
from gearshift.training.data.workers import RequestLoader

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.models.base import Split
    from gearshift.training.data.samples import Request, Samples
    from gearshift.training.settings import Loader
    from gearshift.training.train_plan import TrainPlan


def order_of(split: Split, global_batch: int, seed: int) -> DataOrder:
    """The order of the samples of `split`."""
    if isinstance(split, HasSources) and split.source_weights is not None:
        # For the runs that weigh them.
        from gearshift.training.data.mixed_order import MixedOrder

        return MixedOrder(split.source_sizes, split.source_weights, global_batch, seed)
    return DataOrder(len(split), global_batch, seed)


class _Loaded:
    """What a RequestLoader loads."""

    _source: RequestLoader

    @property
    def workers(self) -> int:
        """Data-loader workers; 0: this process loads the batches."""
        return self._source.workers

    def close(self) -> None:
        self._source.close()


class Batches(_Loaded):
    """The micro-batches of this rank, step by step; the same for any number of workers."""

    def __init__(
        self,
        samples: Samples,
        order: DataOrder,
        train_plan: TrainPlan,
        world: World,
        loader: Loader,
        unused: Sequence[Tensor] = (),
    ):
        """Starts workers, from the step after `train_plan.first_step`.

        Workers do not need the `unused` tensors.
        """
        self.waited_s = 0.0
        """Seconds since the start of the last `take`, in it and in `ahead`."""
        # Is told what `take` returns
        self.taken: Callable[[Sequence[MicroBatch]], None] | None = None
        self._plan = train_plan
        self.samples_by_rank = train_plan.samples_by_rank(train_plan.first_step)
        """Of each step."""
        self._world = world
        self._order = order
        # Copies on a stream of their own take place while the GPU computes.
        self._copies: torch.cuda.Stream | None = None
        if world.device.type == "cuda":
            self._copies = torch.cuda.Stream(world.device)
        self._source = RequestLoader(samples, world, loader, unused)
        self.begin(train_plan.first_step)

    @property
    def micro_batch(self) -> int:
        return self._plan.micro_batch

    @property
    def accumulation(self) -> int:
        return self._plan.accumulation

    @property
    def global_batch(self) -> int:
        return self._plan.global_batch

    @property
    def smaller(self) -> int | None:
        """The next smaller micro-batch, at most half; None: there is none."""
        share = self.micro_batch * self.accumulation
        least = min(self.samples_by_rank)  # each micro-batch of each rank has a sample
        for size in range(self.micro_batch // 2, 0, -1):
            if share % size == 0 and share // size <= least:
                return size
        return None

    def begin(
        self,
        step: int,
        *,
        workers: int | None = None,
        micro_batch: int | None = None,
        samples_by_rank: Sequence[int] | None = None,
    ) -> None:
        """Restart with the batches of the step after `step` updates, and drop prefetched ones.

        No sample is lost or repeated: the data order is computed by step. `micro_batch` is
        `smaller` or a divisor of it; no rank has fewer samples than micro-batches.
        """
        if samples_by_rank is not None:
            self.samples_by_rank = samples_by_rank
        size = micro_batch or self.micro_batch
        self._plan = replace(
            self._plan,
            first_step=step,
            micro_batch=size,
            accumulation=self.micro_batch * self.accumulation // size,
        )
        self._source.begin(self._requests(), self.workers if workers is None else workers)
        self._arriving = iter(self._source)
        self._ahead: list[MicroBatch] = []
        self.error: WorkerDied | None = None
        """Nothing arrives any more, because a worker died."""

    def _requests(self) -> Iterator[Request]:
        """The requests of this rank, micro-batch by micro-batch, to the end of the run."""
        plan = self._plan
        world = self._world
        for step in range(plan.first_step, plan.last_step):
            order_step = step - plan.data_start
            epoch, share = self._order.share(
                order_step,
                world.rank,
                world.size,
                plan.micro_batch,
                self.samples_by_rank,
            )
            for indices in share:
                yield epoch, indices

    def take(self) -> list[MicroBatch]:
        """The micro-batches of the next step, on the device or being copied to it.

        Empty if a worker died, see `error`. Raises DataError for a bad sample.
        """
        self.waited_s = 0.0
        micro_batches = self._ahead or self._arrived()
        self._ahead = []
        if self._copies is not None:
            computing = torch.cuda.current_stream(self._world.device)
            computing.wait_stream(self._copies)
            for tensor in tree_leaves([micro_batch.batch for micro_batch in micro_batches]):
                if isinstance(tensor, torch.Tensor):
                    tensor.record_stream(computing)  # its memory is in use until then
        if self.taken is not None:
            self.taken(micro_batches)
        return micro_batches

    def ahead(self) -> Sequence[MicroBatch]:
        """What the next `take` will return; empty after the last step. Raises as `take`."""
        self._ahead = self._ahead or self._arrived()
        return self._ahead

    def _arrived(self) -> list[MicroBatch]:
        if self.error is not None:
            return []
        began = time.perf_counter()
        loaded = islice(self._arriving, self.accumulation)
        arrived: list[MicroBatch] = []
        with nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
            try:
                arrived = [_moved(micro_batch, self._world.device) for micro_batch in loaded]
            except WorkerDied as error:
                self.error = error
        self.waited_s += time.perf_counter() - began
        return arrived


class EvaluationBatches(_Loaded):
    """The micro-batches of a split for this rank; the same batches for any number of ranks.

    Each sample counts once, on one rank. All ranks have equally many micro-batches, as a forward
    pass may contain collectives: a rank with fewer gets one that does not count.
    """

    def __init__(
        self,
        samples: Samples,
        micro_batch: int,
        world: World,
        loader: Loader,
        unused: Sequence[Tensor] = (),
        *,
        limit: int | None = None,
    ):
        """At most `limit` samples, as Samples.spread; `unused` as in Batches.

        Raises DataError for an empty split.
        """
        if not len(samples):
            raise DataError(
                "the validation split is empty", allowed="a larger eval.share, or more data"
            )
        indices = samples.spread(limit)
        self.samples = len(indices)
        self.split_samples = len(samples)
        """Samples of an evaluation, and of the whole split."""
        batches = -(-len(indices) // micro_batch)
        self._counted = len(range(world.rank, batches, world.size))
        self._device = world.device
        rounds = range(0, batches, world.size)
        starts = [(first + world.rank) % batches * micro_batch for first in rounds]
        self._requests = [(0, list(indices[start : start + micro_batch])) for start in starts]
        self.rounds = len(self._requests)
        """Micro-batches of each rank."""
        self._source = RequestLoader(samples, world, loader, unused)
        self.use_workers(self.workers)

    def use_workers(self, workers: int) -> None:
        """End the workers; the next evaluation starts `workers`."""
        self._source.begin(self._requests, workers)

    def __iter__(self) -> Iterator[tuple[MicroBatch, bool]]:
        """Each micro-batch, on the device, and whether it counts."""
        for number, loaded in enumerate(self._source):
            yield _moved(loaded, self._device), number < self._counted


def _moved(loaded: MicroBatch, device: torch.device) -> MicroBatch:
    if device.type == "cpu":
        return loaded
    return loaded._replace(batch=on_device(loaded.batch, device))


def on_device(value: Any, device: torch.device) -> Any:
    """`value` with all its tensors on the device, or being copied to it."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: on_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [on_device(item, device) for item in value]
    return value
