"""Samples: their order, their micro-batches, randomness and fingerprint, and replayed old ones."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from gearshift.models.base import Batch, CountsTokens, DataError
from gearshift.training.seeds import derive, seed_sample

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.models.base import Draws, NumUnits, Split, Task


_PROBES = 16
_ROUNDS = 8
# Positions permuted per call of numpy, whose overhead equals a few hundred of them
_AT_ONCE = 4096
Request = tuple[int, list[int]]
"""Epoch, and the samples of one micro-batch."""


class MicroBatch(NamedTuple):
    """The batch of one forward and backward pass of a rank, and its units."""

    batch: Batch
    num_units: NumUnits
    num_tokens: int | None = None
    """What is computed, where units are fewer: see CountsTokens; None: as many as units."""
    indices: Sequence[int] = ()
    """Its samples in the split."""


@dataclass(frozen=True)
class SampleDraws:
    """Randomness of one sample; cheap to create, also if the sample draws nothing."""

    key: int
    """Derived from seed and epoch, below 2**63."""
    index: int

    def rng(self) -> np.random.Generator:
        """A new generator from the start of the sequence, at each call."""
        # A counter-based generator: neighboring keys give independent streams.
        bits = np.random.Philox(key=self.key << 64 | self.index)
        return np.random.Generator(bits)


@dataclass(frozen=True)
class Samples:
    """A split as a map from `Request` to `MicroBatch`: the dataset of a torch DataLoader."""

    task: Task
    split: Split
    seed: int

    def __len__(self) -> int:
        return len(self.split)

    def spread(self, limit: int | None) -> Sequence[int]:
        """At most `limit` of the samples, in order: one from each of equal parts; None: all.

        The choice follows from the seed alone: no period in the order of the samples can bias it.
        """
        length = len(self)
        if limit is None or limit >= length:
            return range(length)
        indices = []
        for part in range(limit):
            begin = part * length // limit
            end = (part + 1) * length // limit
            chosen = derive(self.seed, "evaluated", part) % (end - begin)
            indices.append(begin + chosen)
        return indices

    def __getitem__(self, request: Request) -> MicroBatch | DataError:
        """The micro-batch of `request` on the CPU, or the DataError of one of its samples.

        Returned, not raised: torch would wrap the message of a worker in a traceback.
        """
        task = self.task
        epoch, indices = request
        key = derive(self.seed, "sample", epoch)
        try:
            samples = []
            in_worker = get_worker_info() is not None
            for index in indices:
                if in_worker:
                    seed_sample(self.seed, epoch, index)
                draws = SampleDraws(key, index)
                samples.append(self.split.sample(index, draws))
            batch = task.collate(samples)
            tokens = None
            if isinstance(task, CountsTokens):
                tokens = task.num_tokens(batch)
            return MicroBatch(batch, task.num_units(batch), tokens, indices)
        except DataError as error:
            return error


class ReplayMixture:
    """A split of all samples of `new`, followed by samples drawn from `old`.

    The old data is cut into as many intervals as there are replayed samples; each epoch draws one
    sample per interval, so none is repeated. Everything follows from seed, epoch and index.
    """

    def __init__(self, new: Split, old: Sequence[Split], share: float):
        """`share` of the samples are old, in [0, 1), or all old ones if they are fewer."""
        self._new = new
        self._old = old
        # Where each old split begins, and the end of the last
        self._starts = list(accumulate(map(len, old), initial=0))
        self._old_samples = self._starts[-1]
        wanted = round(len(new) * share / (1 - share))
        self.replayed = min(self._old_samples, wanted)
        """Old samples per epoch."""

    def __len__(self) -> int:
        return len(self._new) + self.replayed

    def sample(self, index: int, draws: Draws) -> Any:
        interval = index - len(self._new)
        if interval < 0:
            return self._new.sample(index, draws)
        begin = interval * self._old_samples // self.replayed
        end = (interval + 1) * self._old_samples // self.replayed
        number = int(draws.rng().integers(begin, end))
        part = bisect_right(self._starts, number) - 1
        return self._old[part].sample(number - self._starts[part], _Later(draws))


@dataclass(frozen=True)
class _Later:
    """The randomness of a replayed sample, after the number that chose it."""

    draws: Draws

    def rng(self) -> np.random.Generator:
        """A new generator from the start of the sequence, at each call."""
        generator = self.draws.rng()
        generator.random()
        return generator


def fingerprint(samples: Samples, world: World) -> str:
    """A digest of the number of samples and of 16 of them, including the first and the last.

    It changes if the dataset grows, shrinks or is reordered, but not with every single sample. Rank
    0 reads the samples. Collective.
    """
    count = len(samples)
    digest = hashlib.sha256(f"{count}".encode())
    if world.rank == 0:
        for index in probes(count):
            sample = samples[0, [index]]
            # An unreadable sample is part of the data too; `data.on_bad` handles it elsewhere.
            if isinstance(sample, DataError):
                add(digest, str(sample))
            else:
                add(digest, sample.batch)
    return world.broadcast(digest.digest()[:16]).hex()


def probes(length: int) -> list[int]:
    """At most 16 evenly spaced positions, from the first to the last of `length`."""
    count = min(_PROBES, length)
    places = np.linspace(0, length - 1, count, dtype=np.int64)
    return places.tolist()


def add(digest: Any, value: Any) -> None:
    """Update the hashlib `digest` with mappings, lists and tensors in `value`."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}:".encode())
            add(digest, value[key])
    elif isinstance(value, list | tuple):
        for inner in value:
            add(digest, inner)
    elif isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        # A copy: tensors with one element count as contiguous with any strides.
        whole = value.clone(memory_format=torch.contiguous_format)
        numbers = whole.view(-1).view(torch.uint8)
        digest.update(numbers.numpy())
    else:
        digest.update(f"{value!r};".encode())


class DataOrder:
    """The samples of each global batch, the same for any number of ranks and workers.

    Every epoch is another permutation. It drops its last `length % global_batch` samples, different
    ones in each epoch. Nothing is stored; any step is found in constant time.
    """

    def __init__(self, length: int, global_batch: int, seed: int):
        """`length` samples fill one global batch at least."""
        self.length = length
        self.global_batch = global_batch
        self.seed = seed
        self.steps_per_epoch = length // global_batch
        self._steps_at_once = max(1, _AT_ONCE // global_batch)
        self._block: tuple[int, int] = (-1, -1)
        self._indices: NDArray[np.int64] = np.empty(0, np.int64)

    def batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """Epoch (from 0) and sample indices [global_batch] of the step after `step` updates."""
        epoch, position = divmod(step, self.steps_per_epoch)
        block, offset = divmod(position, self._steps_at_once)
        if (epoch, block) != self._block:
            size = self._steps_at_once * self.global_batch
            self._indices = self._samples_at(epoch, block * size, size)
            self._block = epoch, block
        first = offset * self.global_batch
        return epoch, self._indices[first : first + self.global_batch]

    def _samples_at(self, epoch: int, start: int, count: int) -> NDArray[np.int64]:
        """The samples at `count` positions of an epoch from `start`, as far as there are."""
        stop = min(start + count, self.length)
        seed = derive(self.seed, "order", epoch)
        return permuted(np.arange(start, stop), self.length, seed)

    def share(
        self,
        step: int,
        rank: int,
        world_size: int,
        micro_batch: int,
        samples_by_rank: Sequence[int] = (),
    ) -> tuple[int, list[list[int]]]:
        """Epoch, and the sample indices of each micro-batch of `rank` in that step.

        With other `samples_by_rank` there are as many, which are larger or smaller. Raises
        ValueError if the global batch does not divide into such micro-batches.
        """
        epoch, indices = self.batch(step)
        if len(set(samples_by_rank)) < 2:
            by_rank = indices.reshape(world_size, -1, micro_batch)
            return epoch, by_rank[rank].tolist()

        begin = sum(samples_by_rank[:rank])
        end = begin + samples_by_rank[rank]
        accumulation = self.global_batch // (world_size * micro_batch)
        parts = np.array_split(indices[begin:end], accumulation)
        return epoch, [part.tolist() for part in parts]


def permuted(positions: NDArray[np.int64], length: int, seed: int) -> NDArray[np.int64]:
    """`positions`, each in [0, length), after the permutation of `seed`.

    A Feistel network on the two digits of a position, with radix about the square root of `length`;
    results outside the range pass through it again. Source: Black and Rogaway, Ciphers with
    Arbitrary Finite Domains, 2002, sections 4 and 5. The round function is fast and not secure.
    """
    keys = [derive(seed, "round", number) for number in range(_ROUNDS)]
    radix = math.isqrt(length - 1) + 1
    places = _feistel(positions.astype(np.uint64), radix, keys)
    while True:
        outside = np.flatnonzero(places >= length)
        if not outside.size:
            return places.astype(np.int64)
        places[outside] = _feistel(places[outside], radix, keys)


def _feistel(values: NDArray[np.uint64], radix: int, keys: Sequence[int]) -> NDArray[np.uint64]:
    base = np.uint64(radix)
    high, low = np.divmod(values, base)
    for key in keys:
        mixed = _mix(low + np.uint64(key)) % base
        high, low = low, (high + mixed) % base
    return high * base + low


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits. Source: Steele, Lea and Flood, SplitMix, 2014; constants of variant 13."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
