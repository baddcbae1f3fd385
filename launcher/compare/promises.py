"""Promises of a mode, checked against measurements, or a plan of a GPU: kept, broken, or open."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from gearshift.launcher.compare.rows import NOT_RUN, ComparisonRow, PromiseResult
from gearshift.launcher.compare.study import Study, decide
from gearshift.training.callbacks.base import Facts
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
    promised: Mapping[str, Facts],
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
        is_absolute = name != measure
        if base is None and not is_absolute:
            continue
        measurement = _measure(measure, row, None if is_absolute else base, is_cut)
        is_open = isinstance(measurement, str)
        is_planned = False
        if _needs_gpu(measure, bounds, row):
            measurement = "no GPU"
            if planned and measure == GPU_MEMORY:
                peak, base_peak = planned
                measurement = peak if is_absolute else peak / base_peak
                is_planned = True
        elif name == QUALITY and study and row.study and base and base.study and not is_open:
            # The interval over all rounds decides.
            results.append(
                PromiseResult(name, bounds, *decide(study, bounds, row.study, base.study))
            )
            continue
        if isinstance(measurement, str):
            # That a metric is never reached breaks the promise only if mode default reaches it.
            is_reached = base is not None and base.time_to_metric_s is not None
            is_broken = name == TO_METRIC and row.never_reached and is_reached
            result = PromiseResult(name, bounds, None, False if is_broken else None, measurement)
        else:
            why = f"planned on {CARD}" if is_planned else None
            is_kept = _is_within(measurement, bounds)
            result = PromiseResult(name, bounds, measurement, is_kept, why, is_planned)
        results.append(result)
    return results


def _is_within(value: float, bounds: Facts) -> bool:
    lowest = bounds.get("at_least")
    highest = bounds.get("at_most")
    if lowest is not None and value < lowest:
        return False
    return highest is None or value <= highest


def _needs_gpu(measure: str, bounds: Facts, row: ComparisonRow) -> bool:
    """Whether the promise is one of a GPU, and the run had none."""
    is_of_gpu = measure == GPU_MEMORY or bounds.get("device") == "gpu"
    return is_of_gpu and row.error is None and row.device_peak_bytes is None


def _measure(
    measure: str, row: ComparisonRow, base: ComparisonRow | None, is_cut: bool
) -> float | str:
    """The measurement of `row`, or its ratio to that of `base`; a text: why it is unknown."""
    value = _value(measure, row, is_cut)
    if base is None or isinstance(value, str):
        return value
    base_value = _value(measure, base, is_cut)
    if isinstance(base_value, str):
        return f"mode default: {base_value}"
    if measure in (QUALITY, TO_METRIC):
        # Scores on other data, or on another part of them, cannot be compared.
        source = _scored_on(row)
        base_source = _scored_on(base)
        if source != base_source:
            return f"it is scored on {source}, mode default on {base_source}"
    if measure == QUALITY and row.metric and row.metric.get("direction") == "min":
        value, base_value = base_value, value
    if not base_value or (measure == QUALITY and min(value, base_value) < 0):
        return "no ratio is possible"
    return value / base_value


def _scored_on(row: ComparisonRow) -> str:
    part = render_part(*row.evaluated)
    return f"{part} of {row.source}" if part else str(row.source)


def _value(measure: str, row: ComparisonRow, is_cut: bool) -> float | str:
    """A text: why it is unknown."""
    if row.error is not None:
        return NOT_RUN if row.error == NOT_RUN else "the run failed"
    if measure == QUALITY:
        if row.metric is None:
            return "no evaluation"
        if is_cut:
            return "the runs were cut short"
        number = float(row.metric["value"])
    else:
        number = getattr(row, _FIELDS.get(measure, measure))
    if number is not None and isfinite(number):
        return number
    if measure == TO_METRIC:
        return "never reached" if row.never_reached else "needs --until"
    return "not measured"
