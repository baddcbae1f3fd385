"""Means, intervals and judgements over the folds or seeds of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import atan, cos, pi, sin, sqrt
from statistics import fmean, stdev, variance

CONFIDENCE = 0.95
MOST_SEEDS = 100
"""Further seeds beyond which none are proposed."""


@dataclass(frozen=True)
class Estimate:
    """A mean over folds or seeds."""

    count: int
    mean: float
    deviation: float | None
    """The standard deviation of one fold or seed; None: there is only one."""
    interval: tuple[float, float] | None
    """Of the mean, at CONFIDENCE."""

    @property
    def is_larger_than_noise(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def estimate(values: Sequence[float], share: float = 0.0) -> Estimate:
    """The mean of one value per fold or seed, with its interval.

    `share`: the part of the data that validates, 1/K for K folds; 0 for seeds, which are
    independent. Training sets of folds overlap, so their values are correlated, and the variance of
    the mean is (1/n + share / (1 - share)) S² with n - 1 degrees of freedom. Exact for normal
    values with correlation `share`. Sources: Student, The Probable Error of a Mean, Biometrika 6,
    1908; Nadeau and Bengio, Inference for the Generalization Error, Machine Learning 52, 2003,
    section 3.3.
    """
    mean, count = fmean(values), len(values)
    if count < 2:
        return Estimate(count, mean, None, None)
    half = _half_width(variance(values), count, share)
    return Estimate(count, mean, stdev(values), (mean - half, mean + half))


def margins(
    bounds: Mapping[str, float | None], row: Sequence[float], base: Sequence[float], *, less: bool
) -> list[list[float]]:
    """For each bound of the ratio row / base, the amount by which each run keeps it.

    `less`: less is better, and the ratio is base / row. A bound r of a ratio a / b becomes the
    difference a - r b, which has an interval where a ratio has none. Source: Fieller, Some Problems
    in Interval Estimation, Journal of the Royal Statistical Society B 16, 1954.
    """
    pairs = list(zip(base, row, strict=True) if less else zip(row, base, strict=True))
    lowest, highest = bounds.get("at_least"), bounds.get("at_most")
    amounts = [[above - lowest * below for above, below in pairs]] if lowest is not None else []
    return amounts + (
        [[highest * below - above for above, below in pairs]] if highest is not None else []
    )


def judge(amounts: Sequence[Sequence[float]], share: float = 0.0) -> bool | None:
    """Whether a mean margin is at least 0; None: not decided.

    `amounts`: the margin of each seed, by fold; of seeds alone, each is by itself.
    """
    low, high = estimate([fmean(fold) for fold in amounts], share).interval or (None, None)
    if low is None or high is None:
        return None
    return True if low >= 0 else False if high < 0 else None


def further_seeds(amounts: Sequence[Sequence[float]], share: float = 0.0) -> int | None:
    """The fewest seeds to add until the half width is below the mean margin.

    None: more than MOST_SEEDS, or no number of seeds. Takes mean and spread as they are now. Seeds
    alone: each adds a value. Folds: their number stays; each seed reduces what seeds contribute to
    the variance of a fold's mean. With one seed per fold that part is unknown and taken as all of
    it, so the number is a lower bound.
    """
    means = [fmean(fold) for fold in amounts]
    count, mean = len(means), abs(fmean(means))
    if count < 2:
        return None
    spread = variance(means)
    for further in range(1, MOST_SEEDS + 1):
        if share:
            seeds = fmean(len(fold) for fold in amounts)
            within = [variance(fold) for fold in amounts if len(fold) > 1]
            of_seeds = min(fmean(within) / seeds, spread) if within else spread
            left = spread - of_seeds * further / (seeds + further)
            half = _half_width(left, count, share)
        else:
            half = _half_width(spread, count + further)
        if half < mean:
            return further
    return None


def _half_width(spread: float, count: int, share: float = 0.0) -> float:
    return _quantile(count - 1) * sqrt((1 / count + share / (1 - share)) * spread)


@lru_cache
def _quantile(freedom: int) -> float:
    """The t that Student's distribution exceeds, in either direction, in 1 - CONFIDENCE of cases.

    By bisection: freedom 1 has the largest, 12.7.
    """
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < CONFIDENCE else (low, middle)
    return high


def _inside(t: float, freedom: int) -> float:
    """The probability of Student's distribution between -t and t.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.3 and 26.7.4.
    """
    angle, is_odd = atan(t / sqrt(freedom)), freedom % 2
    term = cos(angle) if is_odd else 1.0
    total = term if freedom > 1 else 0.0
    for number in range(2 + is_odd, freedom - 1, 2):
        term *= (number - 1) / number * cos(angle) ** 2
        total += term
    total *= sin(angle)
    return 2 / pi * (angle + total) if is_odd else total
