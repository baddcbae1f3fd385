"""Promises of a mode, checked against measurements or a plan: kept, broken, or open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QUALITY = "metric"
"""Its ratio is inverted where less is better, so 1 is as good."""
_SCORES = (QUALITY, "time_to_metric")
NO_GPU, GPU_MEMORY = "no GPU", "device_peak"
BYTES = "_bytes"
"""The end of the names of absolute promises; the others are ratios to mode default."""


@dataclass(frozen=True)
class Figures:
    """The measurements of one row, by the names used in promises."""

    values: Mapping[str, float | int | None] = field(default_factory=dict)
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
class PlannedMemory:
    """Bytes of GPU memory by the plans of a row and of mode default; None: there is no plan."""

    why: str
    """`planned on L4`, or why there is no plan."""
    of_row: float | None = None
    of_base: float = 1.0


@dataclass(frozen=True)
class PromiseResult:
    """One promise and its measurement."""

    name: str
    promised: Mapping[str, Any]
    """`at_least` and `at_most`, and their scope."""
    measured: float | int | None
    """A ratio to mode default, or bytes; None: neither measured nor planned."""
    kept: bool | None
    """None: not measured."""
    why: str | None = None
    """Why it was not measured, or where it was planned."""
    planned: bool = False
    """Whether a plan on a GPU gives the figure, as there is none here."""

    @property
    def mark(self) -> str:
        """✓ kept, ✗ broken; after ≈ by a plan."""
        return "≈" * self.planned + {True: "✓", False: "✗", None: ""}[self.kept]


def check(
    promised: Mapping[str, Mapping[str, Any]],
    row: Figures,
    base: Figures | None,
    planned: PlannedMemory | None = None,
) -> list[PromiseResult]:
    """Check each promise of `row`.

    `base` holds the figures of mode default; None for mode default itself, whose only promises are
    absolute ones, in bytes. `planned` is used where there is no GPU.
    """
    has_gpu = row.values.get(GPU_MEMORY) is not None
    results = []
    measured: float | int | None
    why: str | None
    for name, bounds in promised.items():
        is_absolute = name.endswith(BYTES)
        if base is None and not is_absolute:
            continue
        measure, is_planned = name.removesuffix(BYTES), False
        needs_gpu = measure == GPU_MEMORY or bounds.get("device") == "gpu"
        if row.values and not has_gpu and needs_gpu:
            measured, why = None, NO_GPU
            if measure == GPU_MEMORY and planned is not None:
                measured, why = planned.of_row, planned.why
                is_planned = measured is not None
                if measured is not None and not is_absolute:
                    measured /= planned.of_base
        elif is_absolute or base is None:
            measured = row.values.get(measure)
            why = row.reason(measure) if measured is None else None
        else:
            measured, why = _ratio(name, row, base)
        kept = None
        if measured is not None:
            lowest, highest = bounds.get("at_least"), bounds.get("at_most")
            kept = lowest is None or measured >= lowest
            kept = kept and (highest is None or measured <= highest)
        elif name == "time_to_metric" and row.never_reached and base and base.values.get(name):
            kept, why = False, "never reached, unlike mode default"
        results.append(PromiseResult(name, bounds, measured, kept, why, is_planned))
    return results


def _ratio(name: str, row: Figures, base: Figures) -> tuple[float | None, str | None]:
    """`name` of `row` divided by that of `base`, or why there is none."""
    ours, theirs = row.values.get(name), base.values.get(name)
    if ours is None:
        return None, row.reason(name)
    if theirs is None:
        return None, f"mode default: {base.reason(name)}"
    if name in _SCORES and row.source != base.source:
        return None, f"it is scored on {row.source}, mode default on {base.source}"
    if name == QUALITY and row.less_is_better:
        ours, theirs = theirs, ours
    if not theirs or (name == QUALITY and min(ours, theirs) < 0):
        return None, "no ratio is possible"
    return ours / theirs, None
