"""What a mode promised beside what was measured: kept, broken, or not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = float | int | None
Bounds = Mapping[str, float | None]

INVERTED = "metric"
"""A quality: its ratio is turned round where less is better, so that 1 is always as good."""
_ABSOLUTE = {"device_peak_bytes": "device_peak", "host_peak_bytes": "host_peak"}


@dataclass(frozen=True)
class Figures:
    """What was measured of one row, by the names that promises have."""

    values: Mapping[str, Number] = field(default_factory=dict)
    less_is_better: bool = False
    """Of the metric."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Why a value is not known."""
    never_reached: bool = False
    """The run came to its end without the metric that was to be reached."""

    def reason(self, name: str) -> str:
        """Why there is no value under `name`."""
        return self.why.get(name, "not measured")


@dataclass(frozen=True)
class PromiseResult:
    """One promise, and what became of it."""

    name: str
    promised: Bounds
    measured: Number
    """A ratio to mode default; bytes as they are. None: not measured."""
    kept: bool | None
    """None: it cannot be told here."""
    why: str | None = None
    """What stood in the way."""


def check(
    promised: Mapping[str, Bounds], row: Figures, base: Figures | None
) -> list[PromiseResult]:
    """Each promise of `row` beside what was measured.

    `base` is what mode default came to; None for mode default itself, which is held to bytes alone,
    for there is nothing to be compared with.
    """
    found = []
    for name, bounds in promised.items():
        if name in _ABSOLUTE:
            found.append(_absolute(name, bounds, row))
        elif base is not None:
            found.append(_relative(name, bounds, row, base))
    return found


def ratio(name: str, row: Figures, base: Figures) -> float | None:
    """`name` of `row` over that of `base`; None where it cannot be told."""
    ours, theirs = row.values.get(name), base.values.get(name)
    if ours is None or theirs is None:
        return None
    if name == INVERTED and row.less_is_better:
        ours, theirs = theirs, ours
    if name == INVERTED and (ours < 0 or theirs < 0):
        return None  # of a negative quality, twice as much is no better
    return ours / theirs if theirs else None


def _absolute(name: str, bounds: Bounds, row: Figures) -> PromiseResult:
    of = _ABSOLUTE[name]
    value = row.values.get(of)
    if value is None:
        return PromiseResult(name, bounds, None, None, row.reason(of))
    return PromiseResult(name, bounds, value, _within(value, bounds))


def _relative(name: str, bounds: Bounds, row: Figures, base: Figures) -> PromiseResult:
    measured = ratio(name, row, base)
    if measured is not None:
        return PromiseResult(name, bounds, measured, _within(measured, bounds))
    if row.values.get(name) is not None:
        why = f"mode default: {base.reason(name)}"
        if base.values.get(name) is not None:
            why = "no ratio can be made of it"
        return PromiseResult(name, bounds, None, None, why)
    if name == "time_to_metric" and row.never_reached and base.values.get(name) is not None:
        return PromiseResult(name, bounds, None, False, "never reached, as mode default has")
    return PromiseResult(name, bounds, None, None, row.reason(name))


def _within(value: float | int, bounds: Bounds) -> bool:
    least, most = bounds.get("at_least"), bounds.get("at_most")
    return (least is None or value >= least) and (most is None or value <= most)
