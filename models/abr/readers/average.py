"""A running average of sweeps, and how far it can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.abr.readers.points import to_points


class Average:
    """The sum of sweeps and of their squares; no sweep is kept."""

    def __init__(self, rate_hz: float, window_ms: float) -> None:
        self.sweeps = 0
        self._samples = window_ms * rate_hz / 1000
        self._sum = self._square = np.zeros(1)

    def add(self, sweep: NDArray[np.float64]) -> None:
        """One more, [sample], in µV."""
        self.sweeps += 1
        self._sum = self._sum + sweep
        self._square = self._square + sweep**2

    def points(self) -> NDArray[np.float32]:
        """The average, [200]."""
        return to_points(self._sum / self.sweeps, self._samples)

    def fmp(self) -> float:
        """Variance of the average over time, by that of what noise leaves in an average.

        The noise is that of single sweeps at many points of time, over the number of sweeps: about
        1 without a response. Source: Elberling and Don, Quality estimation of averaged auditory
        brainstem responses, 1984, whose Fsp looks at one point.
        """
        mean = self._sum / self.sweeps
        noise = (self._square / self.sweeps - mean**2).mean() / max(1, self.sweeps - 1)
        return float(mean.var() / noise) if noise > 0 else float("nan")
