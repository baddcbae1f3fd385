"""Promises of a mode, checked against measurements, or a plan of a GPU: kept, broken, or open."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from gearshift.launcher.compare.rows import NOT_RUN, ComparisonRow, PromiseResult
from gearshift.launcher.compare.study import Study, decide
from gearshift.training.logging.console_text import render_part

QUALITY = "metric"
TO_METRIC = "time_to_metric"
GPU_MEMORY = "device_peak"
"""The ratio of QUALITY is inverted where less is better, so 1 is as good."""
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
CARD = "B200"
"""The GPU of plans: one of 180 GB, so that they fit; peaks do not depend on its memory."""


def check(
    promised: Mapping[str, Mapping[str, Any]],
    row: ComparisonRow,
    base: ComparisonRow | None,
    *,
    is_cut: bool = False,
    study: Study | None = None,
    planned: tuple[float, float] | None = None,
) -> list[PromiseResult]:
    """Check each promise of `row`.

    `base` is the row of mode default; None for mode default itself, whose only promises are
    absolute ones, in bytes. `is_cut`: runs ended before their training plan. A `study` decides
    promises of quality by their interval; `planned`: the peaks of a GPU where there is none, of the
    candidate and of mode default.
    """
    results = []
    for name, bounds in promised.items():
        measure = name.removesuffix(BYTES)
        is_absolute = name.endswith(BYTES)
        if base is None and not is_absolute:
            continue
        measured = None
        kept = None
        why = None
        is_planned = False
        of_gpu = measure == GPU_MEMORY
        if (
            row.error is None
            and row.device_peak_bytes is None
            and (of_gpu or bounds.get("device") == "gpu")
        ):
            why = "no GPU"
            if of_gpu and planned is not None:
                measured = planned[0] / (1.0 if is_absolute else planned[1])
                why = f"planned on {CARD}"
                is_planned = True
        elif isinstance(
            value := _measure(measure, row, None if is_absolute else base, is_cut), str
        ):
            why = value
            if (
                name == TO_METRIC
                and row.never_reached
                and base
                and base.time_to_metric_s is not None
            ):
                kept = False
                why = "never reached, unlike mode default"
        elif name == QUALITY and study and row.study and base and base.study:
            results.append(
                PromiseResult(name, bounds, *decide(study, bounds, row.study, base.study))
            )
            continue
        else:
            measured = value
        if measured is not None:
            lowest = bounds.get("at_least")
            highest = bounds.get("at_most")
            kept = (lowest is None or measured >= lowest) and (
                highest is None or measured <= highest
            )
        results.append(PromiseResult(name, bounds, measured, kept, why, is_planned))
    return results


def _measure(
    measure: str, row: ComparisonRow, base: ComparisonRow | None, is_cut: bool
) -> float | str:
    """The measurement of `row`, or its ratio to that of `base`; a text: why it is unknown."""
    ours = _value(measure, row, is_cut)
    if base is None or isinstance(ours, str):
        return ours
    theirs = _value(measure, base, is_cut)
    if isinstance(theirs, str):
        return f"mode default: {theirs}"
    if measure in (QUALITY, TO_METRIC):
        # Scores on other data, or on another part of them, cannot be compared.
        parts = [(render_part(*one.evaluated), one.source) for one in (row, base)]
        source, other = (f"{part} of {of}" if part else of for part, of in parts)
        if source != other:
            return f"it is scored on {source}, mode default on {other}"
    if measure == QUALITY and row.metric is not None and row.metric.get("direction") == "min":
        ours, theirs = theirs, ours
    if not theirs or (measure == QUALITY and min(ours, theirs) < 0):
        return "no ratio is possible"
    return ours / theirs


def _value(measure: str, row: ComparisonRow, is_cut: bool) -> float | str:
    if row.error is not None:
        return NOT_RUN if row.error == NOT_RUN else "the run failed"
    number: float | None = None
    why = "not measured"
    if measure == QUALITY:
        if row.metric is None or is_cut:
            return "no evaluation" if row.metric is None else "the runs were cut short"
        number = float(row.metric["value"])
    else:
        number = getattr(row, _FIELDS.get(measure, measure))
    if measure == TO_METRIC:
        why = "never reached" if row.never_reached else "needs --until"
    elif measure in ("epoch_time", "total_time"):
        why = "no evaluation was timed"
    return number if number is not None and isfinite(number) else why
