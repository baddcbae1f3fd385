"""Shares of ranks that are not equal: whole samples of a global batch for each rank."""

from __future__ import annotations

from collections.abc import Sequence

AUTO = "auto"
EQUAL = "equal"


def apportion(
    total: int,
    weights: Sequence[float],
    least: int,
    most: Sequence[int] | None = None,
) -> list[int]:
    """Whole numbers with the sum `total`, in proportion to `weights` as far as they can be.

    Each is at least `least` and at most its one of `most`, whose sum reaches the total. The largest
    ratio to a weight is as small as it can be: the slowest rank is ready as early as possible.
    """
    limits = most or [total] * len(weights)
    whole = sum(weights)
    numbers = []
    for weight, limit in zip(weights, limits, strict=True):
        numbers.append(min(max(int(total * weight / whole), least), limit))
    ranks = range(len(numbers))
    while sum(numbers) < total:
        open_ranks = [rank for rank in ranks if numbers[rank] < limits[rank]]
        first = min(open_ranks, key=lambda rank: (numbers[rank] + 1) / weights[rank])
        numbers[first] += 1
    while sum(numbers) > total:
        above = [rank for rank in ranks if numbers[rank] > least]
        last = max(above, key=lambda rank: numbers[rank] / weights[rank])
        numbers[last] -= 1
    return numbers
