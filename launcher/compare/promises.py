"""Promises of a mode, checked against measurements: kept, broken, or not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = float | int | None
Bounds = Mapping[str, float | None]

INVERTED = "metric"
"""The quality metric: its ratio is inverted where less is better, so 1 is as good."""
_SCORES = (INVERTED, "time_to_metric")
_ABSOLUTE = {"device_peak_bytes": "device_peak", "host_peak_bytes": "host_peak"}


@dataclass(frozen=True)
class Figures:
    """The measurements of one row, by the names used in promises."""

    values: Mapping[str, Number] = field(default_factory=dict)
    less_is_better: bool = False
    """Whether a smaller metric is better."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Why a value is missing, by name."""
    never_reached: bool = False
    """The run ended without reaching the metric of --until."""
    source: str | None = None
    """The data, and the part that is scored; scores on other data cannot be compared."""

    def reason(self, name: str) -> str:
        """Why `name` has no value."""
        return self.why.get(name, "not measured")


@dataclass(frozen=True)
class PromiseResult:
    """One promise and its measurement."""

    name: str
    promised: Bounds
    measured: Number
    """A ratio to mode default, or bytes; None: not measured."""
    kept: bool | None
    """None: not measured."""
    why: str | None = None
    """Why it was not measured."""


def check(
    promised: Mapping[str, Bounds], row: Figures, base: Figures | None
) -> list[PromiseResult]:
    """Check each promise of `row`.

    `base` holds the figures of mode default; None for mode default itself, whose only promises are
    absolute ones, in bytes.
    """
    results = []
    for name, bounds in promised.items():
        if name in _ABSOLUTE:
            value, why = row.values.get(_ABSOLUTE[name]), row.reason(_ABSOLUTE[name])
            kept = None if value is None else _within(value, bounds)
            results.append(PromiseResult(name, bounds, value, kept, why if kept is None else None))
        elif base is not None:
            results.append(_relative(name, bounds, row, base))
    return results


def ratio(name: str, row: Figures, base: Figures) -> float | None:
    """`name` of `row` divided by that of `base`; None: not measured."""
    ours, theirs = row.values.get(name), base.values.get(name)
    if ours is None or theirs is None or (name in _SCORES and row.source != base.source):
        return None
    if name == INVERTED and row.less_is_better:
        ours, theirs = theirs, ours
    if name == INVERTED and (ours < 0 or theirs < 0):
        return None  # a ratio of negative values has no meaning
    return ours / theirs if theirs else None


def _relative(name: str, bounds: Bounds, row: Figures, base: Figures) -> PromiseResult:
    measured = ratio(name, row, base)
    if measured is not None:
        return PromiseResult(name, bounds, measured, _within(measured, bounds))
    if row.values.get(name) is not None:
        reason = f"mode default: {base.reason(name)}"
        if base.values.get(name) is not None:
            reason = "no ratio is possible"
            if name in _SCORES and row.source != base.source:
                reason = f"it is scored on {row.source}, mode default on {base.source}"
        return PromiseResult(name, bounds, None, None, reason)
    if name == "time_to_metric" and row.never_reached and base.values.get(name) is not None:
        return PromiseResult(name, bounds, None, False, "never reached, unlike mode default")
    return PromiseResult(name, bounds, None, None, row.reason(name))


def _within(value: float | int, bounds: Bounds) -> bool:
    lowest, highest = bounds.get("at_least"), bounds.get("at_most")
    return (lowest is None or value >= lowest) and (highest is None or value <= highest)
