"""The order of the samples of several sources by their shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gearshift.training.data.samples import DataOrder, permuted
from gearshift.training.seeds import derive

_NEVER = 1e-300
"""Instead of a share of 0."""


class MixedOrder(DataOrder):
    """The samples of several sources, each with its share of all that are taken.

    A source that is used up begins again with another permutation, while a longer one goes on: an
    epoch, as many samples as there are, repeats some and lacks others. Nothing is dropped.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        global_batch: int,
        seed: int,
    ):
        """The sources follow each other in the numbers of samples."""
        super().__init__(sum(sizes), global_batch, seed)
        self.length = self.steps_per_epoch * global_batch
        self._sizes = sizes
        self._shares = np.array(weights) / sum(weights)

    def _samples_at(self, epoch: int, start: int, count: int) -> NDArray[np.int64]:
        start += epoch * self.length
        sources, numbers = interleave(start, count, self._shares)
        samples = np.empty(count, np.int64)
        begin = 0
        for source, size in enumerate(self._sizes):
            places = np.flatnonzero(sources == source)
            passes, positions = np.divmod(numbers[places], size)
            for number in np.unique(passes).tolist():
                is_in_pass = passes == number
                numbers_of_samples = permuted(
                    positions[is_in_pass],
                    size,
                    derive(self.seed, "source", source, number),
                )
                samples[places[is_in_pass]] = begin + numbers_of_samples
            begin += size
        return samples


def interleave(
    start: int, count: int, shares: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The source at each of `count` positions from `start`, and how often it came before [count].

    Number n of a source is due at (n + 1/2) ÷ its share, and what is due first comes first. Of the
    first p positions a source has p × its share, but for (1 + share × (sources - 2)) ÷ 2 at most.
    Source: Webster's method; Balinski and Young, Fair Representation, 1982.
    """
    slack = len(shares)
    # Surely reached before `start`; what is due from there to `start` is skipped.
    reached = np.floor(shares * start) - slack
    least = np.maximum(0, reached).astype(np.int64)
    width = count + 2 * slack + 2
    numbers = least[:, None] + np.arange(width)  # [source, number]
    due = (numbers + 0.5) / np.maximum(shares, _NEVER)[:, None]
    order = np.argsort(due, axis=None, kind="stable")
    skipped = start - least.sum()
    chosen = order[skipped : skipped + count]
    return chosen // width, numbers.ravel()[chosen]
