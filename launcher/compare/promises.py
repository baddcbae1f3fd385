"""Promises of a mode, checked against measurements or a plan: kept, broken, or open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Number = float | int | None
Bounds = Mapping[str, Any]
"""`at_least` and `at_most`, and their scope."""

QUALITY = "metric"
"""The quality metric: its ratio is inverted where less is better, so 1 is as good."""
_SCORES = (QUALITY, "time_to_metric")
NO_GPU = "no GPU"
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
    gpu: str | None = None
    """The GPU of a plan that predicts them; None: they are measured."""

    def reason(self, name: str) -> str:
        """Why `name` has no value."""
        return self.why.get(name, "not measured")


@dataclass(frozen=True)
class PromiseResult:
    """One promise and its measurement."""

    name: str
    promised: Bounds
    measured: Number
    """A ratio to mode default, or bytes; None: neither measured nor planned."""
    kept: bool | None
    """None: not measured."""
    why: str | None = None
    """Why it was not measured."""
    planned: bool = False
    """Whether a plan on a GPU gives the figure, as there is none here."""

    @property
    def mark(self) -> str:
        """✓ kept, ✗ broken; after ≈ by a plan."""
        return "≈" * self.planned + {True: "✓", False: "✗", None: ""}[self.kept]


def is_of_gpu(name: str, bounds: Bounds) -> bool:
    """Whether a promise is one of a GPU: of its memory, or of a run on it."""
    return name.startswith("device_peak") or bounds.get("device") == "gpu"


def check(
    promised: Mapping[str, Bounds],
    row: Figures,
    base: Figures | None,
    planned: tuple[Figures, Figures] | None = None,
) -> list[PromiseResult]:
    """Check each promise of `row`.

    `base` holds the figures of mode default; None for mode default itself, whose only promises are
    absolute ones, in bytes. `planned` holds those of both on a GPU, used where there is none.
    """
    results = []
    for name, bounds in promised.items():
        if base is None and name not in _ABSOLUTE:
            continue
        has_gpu = row.values.get("device_peak") is not None
        if row.values and not has_gpu and is_of_gpu(name, bounds):
            results.append(_without_gpu(name, bounds, planned))
        else:
            results.append(_checked(name, bounds, row, base or row))
    return results


def _checked(name: str, bounds: Bounds, row: Figures, base: Figures) -> PromiseResult:
    if name not in _ABSOLUTE:
        return _relative(name, bounds, row, base)
    value, why = row.values.get(_ABSOLUTE[name]), row.reason(_ABSOLUTE[name])
    kept = None if value is None else _within(value, bounds)
    return PromiseResult(name, bounds, value, kept, why if kept is None else None)


def _without_gpu(
    name: str, bounds: Bounds, planned: tuple[Figures, Figures] | None
) -> PromiseResult:
    """Memory by the plans; a time stays open, beside the estimate of a data sheet."""
    nothing = PromiseResult(name, bounds, None, None, NO_GPU)
    if planned is None:
        return nothing
    result = _checked(name, bounds, *planned)
    if why := next((each.why["device_peak"] for each in planned if each.why), None):
        return replace(nothing, why=why)
    if result.measured is None:
        return nothing
    if "time" in name or "_per_s" in name:
        return replace(
            nothing, why=f"{NO_GPU}; {result.measured:.3g} by data sheet of {planned[0].gpu}"
        )
    return replace(result, why=f"planned on {planned[0].gpu}", planned=True)


def ratio(name: str, row: Figures, base: Figures) -> float | None:
    """`name` of `row` divided by that of `base`; None: not measured."""
    ours, theirs = row.values.get(name), base.values.get(name)
    if ours is None or theirs is None or (name in _SCORES and row.source != base.source):
        return None
    if name == QUALITY and row.less_is_better:
        ours, theirs = theirs, ours
    if name == QUALITY and (ours < 0 or theirs < 0):
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
