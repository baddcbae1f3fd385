"""Samples made into micro-batches, their randomness, and old samples replayed among new ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.base import Batch, DataError
from training.seeds import derive

if TYPE_CHECKING:
    import numpy as np

    from models.base import Draws, NumUnits, Split, Task


Request = tuple[int, list[int]]
"""Epoch, and the samples of one micro-batch."""


class MicroBatch(NamedTuple):
    """What one rank puts through one forward and backward, and the units in it."""

    batch: Batch
    num_units: NumUnits


@dataclass(frozen=True)
class SampleDraws:
    """Randomness of one sample; built for nothing where the sample draws none."""

    key: int
    """Of seed and epoch, below 2**63."""
    index: int

    def rng(self) -> np.random.Generator:
        """A generator that starts anew at each call."""
        # A counter-based generator: neighbouring keys are as good as distant ones.
        return np.random.Generator(np.random.Philox(key=self.key << 64 | self.index))


class Samples:
    """A split as a map from `Request` to `MicroBatch`: the dataset of a torch DataLoader."""

    def __init__(self, task: Task, split: Split, seed: int):
        self._task = task
        self._split = split
        self._seed = seed

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, request: Request) -> MicroBatch | DataError:
        """The micro-batch of `request`, on the CPU; or the DataError that a sample of it raised.

        Handed over and not raised: on its way out of a worker torch would wrap a traceback around
        the text, which is meant for the person whose data it is.
        """
        epoch, indices = request
        key = derive(self._seed, "sample", epoch)
        try:
            batch = self._task.collate(
                [self._split.sample(index, SampleDraws(key, index)) for index in indices]
            )
            return MicroBatch(batch, self._task.num_units(batch))
        except DataError as fault:
            return fault


def replayed(new: int, old: int, share: float) -> int:
    """How many of `old` samples join `new` ones, so that they are `share` of them all; no more
    than there are. `share` in [0, 1).
    """
    return min(old, round(new * share / (1 - share)))


class ReplayMixture:
    """All samples of `new`, and behind them such as are drawn from `old`; see models/base.py.

    The places for old samples are stretches of the old data, one sample of each in every epoch: no
    sample comes twice in an epoch, and epochs differ. All follows from seed, epoch and index.
    """

    def __init__(self, new: Split, old: Sequence[Split], share: float):
        """`share` of the samples are old ones, or all there are; in [0, 1)."""
        self._new, self._old = new, old
        self._ends = list(accumulate(len(split) for split in old))
        self._there = self._ends[-1] if self._ends else 0
        self.replayed = replayed(len(new), self._there, share)
        """How many samples of an epoch are old."""

    def __len__(self) -> int:
        return len(self._new) + self.replayed

    def sample(self, index: int, draws: Draws) -> Any:
        """A new sample, or an old one of the stretch that `index` stands for."""
        place = index - len(self._new)
        if place < 0:
            return self._new.sample(index, draws)
        begin = place * self._there // self.replayed
        end = (place + 1) * self._there // self.replayed
        chosen = int(draws.rng().integers(begin, end))
        part = bisect_right(self._ends, chosen)
        before = self._ends[part - 1] if part else 0
        return self._old[part].sample(chosen - before, _Later(draws))


@dataclass(frozen=True)
class _Later:
    """The randomness of a sample behind the number that chose it."""

    draws: Draws

    def rng(self) -> np.random.Generator:
        """A generator that starts anew at each call."""
        generator = self.draws.rng()
        generator.random()
        return generator
