"""Promises of a mode, checked against measurements or a plan: kept, broken, or open."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from launcher.compare.rows import NOT_RUN, ComparisonRow, PromiseResult
from launcher.compare.study import Study, judge
from training.logging.console_text import render_part

QUALITY, TO_METRIC = "metric", "time_to_metric"
"""The ratio of QUALITY is inverted where less is better, so 1 is as good."""
NO_GPU, GPU_MEMORY = "no GPU", "device_peak"
BYTES = "_bytes"
"""The end of the names of absolute promises; the others are ratios to mode default."""
_FIELDS = {
    "epoch_time": "epoch_s",
    "step_time": "step_s",
    "total_time": "total_s",
    TO_METRIC: "time_to_metric_s",
    "peak_memory": "peak_memory_bytes",
    GPU_MEMORY: "device_peak_bytes",
    "host_peak": "host_peak_bytes",
}
"""The field of a row for a measure of another name."""


def check(
    promised: Mapping[str, Mapping[str, Any]],
    row: ComparisonRow,
    base: ComparisonRow | None,
    *,
    is_cut: bool = False,
    has_goal: bool = False,
    study: Study | None = None,
    planned: tuple[float, float, str] | None = None,
) -> list[PromiseResult]:
    """Check each promise of `row`.

    `base` is the row of mode default; None for mode default itself, whose only promises are
    absolute ones, in bytes. `is_cut`: runs were cut short; `has_goal`: --until was given. A `study`
    decides promises of quality by their interval; `planned`, see planned.Peaks, those of a GPU where
    there is none.
    """
    results = []
    for name, bounds in promised.items():
        measure, is_absolute = name.removesuffix(BYTES), name.endswith(BYTES)
        if base is None and not is_absolute:
            continue
        measured: float | None = None
        why: str | None = NO_GPU
        kept: bool | None = None
        needs_gpu = measure == GPU_MEMORY or bounds.get("device") == "gpu"
        if not needs_gpu or row.error is not None or row.device_peak_bytes is not None:
            measured, why = _value(measure, row, is_cut, has_goal)
            if measured is not None and base is not None and not is_absolute:
                theirs, lacking = _value(measure, base, is_cut, has_goal)
                measured, why = _ratio(name, row, base, measured, theirs)
                why = f"mode default: {lacking}" if lacking else why
        elif measure == GPU_MEMORY and planned is not None:
            measured, why = planned[0] / (1.0 if is_absolute else planned[1]), f"planned on {planned[2]}"
        if name == QUALITY and measured is not None and study and row.study and base and base.study:
            measured, kept, why = judge(study, bounds, row.study, base.study)
        elif measured is not None:
            lowest, highest = bounds.get("at_least"), bounds.get("at_most")
            kept = (lowest is None or measured >= lowest) and (highest is None or measured <= highest)
        elif name == TO_METRIC and row.never_reached and base and base.time_to_metric_s is not None:
            kept, why = False, "never reached, unlike mode default"
        is_planned = measured is not None and needs_gpu and row.device_peak_bytes is None
        results.append(PromiseResult(name, bounds, measured, kept, why, is_planned))
    return results


def _value(measure: str, row: ComparisonRow, is_cut: bool, has_goal: bool) -> tuple[float | None, str | None]:
    """The measurement of a row, or why there is none."""
    value = None if measure == QUALITY else getattr(row, _FIELDS.get(measure, measure))
    why = NO_GPU if measure == GPU_MEMORY else "not measured"
    if row.error is not None:
        value, why = None, NOT_RUN if row.error == NOT_RUN else "the run failed"
    elif measure == QUALITY and row.metric is None:
        why = "no evaluation"
    elif measure == QUALITY and (is_cut or has_goal):
        why = "the runs were cut short"
    elif measure == QUALITY and row.metric and isfinite(float(row.metric["value"])):
        value = float(row.metric["value"])
    elif measure == TO_METRIC:
        why = "never reached" if has_goal else "needs --until"
    elif measure in ("epoch_time", "total_time") and row.evaluation_s is None:
        why = "no evaluation was timed"
    return value, why if value is None else None


def _ratio(
    name: str, row: ComparisonRow, base: ComparisonRow, ours: float, theirs: float | None
) -> tuple[float | None, str | None]:
    """The ratio of two measurements, or why there is none."""
    if theirs is None:
        return None, None
    if name in (QUALITY, TO_METRIC):
        # Scores on other data, or on another part of them, cannot be compared.
        parts = [(render_part(*one.evaluated), one.source) for one in (row, base)]
        source, other = (f"{part} of {of}" if part else of for part, of in parts)
        if source != other:
            return None, f"it is scored on {source}, mode default on {other}"
    if name == QUALITY and row.metric is not None and row.metric.get("direction") == "min":
        ours, theirs = theirs, ours
    if not theirs or (name == QUALITY and min(ours, theirs) < 0):
        return None, "no ratio is possible"
    return ours / theirs, None
