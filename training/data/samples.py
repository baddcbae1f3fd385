"""Samples made into batches by position, each with randomness of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from models.base import Batch, DataError
from training.seeds import derive

if TYPE_CHECKING:
    from models.base import Split, Task, Weight

Request = tuple[int, list[int]]
"""Epoch, and the samples of one micro-batch."""


class MicroBatch(NamedTuple):
    """What one rank puts through one forward and backward, and the units in it."""

    batch: Batch
    weight: Weight


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
