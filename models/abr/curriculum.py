"""How much each term of the loss counts as the run goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

COMPLETE = 0.6
"""Of the run, by which every term has its full weight."""


@dataclass(frozen=True)
class Curriculum:
    """The epoch at which each term starts, and the epochs it takes to its full weight."""

    starts: Mapping[str, float]
    """Terms that are not among these count from the beginning."""
    ramp: float

    def factors(self, terms: Collection[str], epoch: float, epochs: float) -> dict[str, float]:
        """The share of its weight that each of `terms` has after `epoch` of `epochs`.

        Where the last of them would not be complete by 60 % of the run, starts and ramp shrink
        together until it is.
        """
        starts = {term: self.starts.get(term) for term in terms}
        last = max((start + self.ramp for start in starts.values() if start is not None), default=0)
        shrink = min(1.0, COMPLETE * epochs / last) if last else 1.0
        return {
            term: 1.0 if start is None else _risen(epoch - shrink * start, shrink * self.ramp)
            for term, start in starts.items()
        }


def _risen(since: float, ramp: float) -> float:
    """From 0 to 1 over `ramp`."""
    if ramp <= 0:
        return float(since >= 0)
    return min(1.0, max(0.0, since / ramp))
