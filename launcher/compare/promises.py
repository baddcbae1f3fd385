"""Promises of a mode, checked against measurements, or a plan of a GPU: kept, broken, or open."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from launcher.compare.candidates import BASELINE, ModeCandidate, PlannedComparison
from launcher.compare.rows import NOT_RUN, ComparisonRow, PromiseResult
from launcher.compare.study import Study, decide
from launcher.config.provenance import CliArgs
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
CARD = "B200"
"""The GPU of plans: one of 180 GB, so that they fit; peaks do not depend on its memory."""
Peaks = dict[tuple[str, str, str | None], tuple[float, float]]
"""By mode, engine and stage, None: all: bytes of the candidate and of mode default."""


class _NotMeasured(Exception):
    """A figure is unknown; the message says why."""


def check(
    promised: Mapping[str, Mapping[str, Any]],
    row: ComparisonRow,
    base: ComparisonRow | None,
    *,
    is_cut: bool = False,
    has_goal: bool = False,
    study: Study | None = None,
    planned: tuple[float, float] | None = None,
) -> list[PromiseResult]:
    """Check each promise of `row`.

    `base` is the row of mode default; None for mode default itself, whose only promises are
    absolute ones, in bytes. `is_cut`: runs were cut short; `has_goal`: --until was given. A `study`
    decides promises of quality by their interval; `planned`, one of Peaks, those of a GPU where
    there is none.
    """
    results = []
    for name, bounds in promised.items():
        measure, is_absolute = name.removesuffix(BYTES), name.endswith(BYTES)
        if base is None and not is_absolute:
            continue
        measured, kept, why = None, None, None
        lacks_gpu = row.error is None and row.device_peak_bytes is None
        lacks_gpu &= measure == GPU_MEMORY or bounds.get("device") == "gpu"
        try:
            if not lacks_gpu:
                figure = _value(measure, row, is_cut, has_goal)
                compared = None if is_absolute else base
                measured = _ratio(name, figure, row, compared, is_cut, has_goal) if compared else figure
            elif measure == GPU_MEMORY and planned is not None:
                measured, why = planned[0] / (1.0 if is_absolute else planned[1]), f"planned on {CARD}"
            else:
                why = NO_GPU
        except _NotMeasured as reason:
            why = str(reason)
        if name == QUALITY and measured is not None and study and row.study and base and base.study:
            measured, kept, why = decide(study, bounds, row.study, base.study)
        elif measured is not None:
            lowest, highest = bounds.get("at_least"), bounds.get("at_most")
            kept = (lowest is None or measured >= lowest) and (highest is None or measured <= highest)
        elif name == TO_METRIC and row.never_reached and base and base.time_to_metric_s is not None:
            kept, why = False, "never reached, unlike mode default"
        results.append(PromiseResult(name, bounds, measured, kept, why, lacks_gpu and measured is not None))
    return results


def _value(measure: str, row: ComparisonRow, is_cut: bool, has_goal: bool) -> float:
    """The measurement of a row. Raises _NotMeasured."""
    if row.error is not None:
        raise _NotMeasured(NOT_RUN if row.error == NOT_RUN else "the run failed")
    if measure == QUALITY and row.metric is None:
        raise _NotMeasured("no evaluation")
    if measure == QUALITY and (is_cut or has_goal):
        raise _NotMeasured("the runs were cut short")
    if measure == QUALITY and row.metric is not None:
        value = float(row.metric["value"])
    else:
        value = getattr(row, _FIELDS.get(measure, measure))
    if value is not None and isfinite(value):
        return value
    reasons = {GPU_MEMORY: NO_GPU, TO_METRIC: "never reached" if has_goal else "needs --until"}
    reasons |= dict.fromkeys(("epoch_time", "total_time"), "no evaluation was timed")
    raise _NotMeasured(reasons.get(measure, "not measured"))


def _ratio(
    name: str, ours: float, row: ComparisonRow, base: ComparisonRow, is_cut: bool, has_goal: bool
) -> float:
    """The measurement of `row` over that of `base`. Raises _NotMeasured."""
    try:
        theirs = _value(name, base, is_cut, has_goal)
    except _NotMeasured as reason:
        raise _NotMeasured(f"mode default: {reason}") from None
    if name in (QUALITY, TO_METRIC):
        # Scores on other data, or on another part of them, cannot be compared.
        parts = [(render_part(*one.evaluated), one.source) for one in (row, base)]
        source, other = (f"{part} of {of}" if part else of for part, of in parts)
        if source != other:
            raise _NotMeasured(f"it is scored on {source}, mode default on {other}")
    if name == QUALITY and row.metric is not None and row.metric.get("direction") == "min":
        ours, theirs = theirs, ours
    if not theirs or (name == QUALITY and min(ours, theirs) < 0):
        raise _NotMeasured("no ratio is possible")
    return ours / theirs


def plan_peaks(
    comparison: PlannedComparison, arguments: Callable[[CliArgs], Sequence[str]], env: Mapping[str, str]
) -> Peaks:
    """The planned peaks of the candidates that promise memory of a GPU and have none.

    Those whose plan fails are left out. `arguments` gives those of a command line.
    """

    def peaks(item: ModeCandidate) -> dict[str | None, float]:
        """The peak of a candidate by stage, under None of the whole; empty: there is no plan."""
        sets = [text for text in item.args.sets if text not in comparison.limits.sets]
        args = replace(item.args, sets=sets).with_sets(["device=auto"])
        line = [sys.executable, "-m", "launcher", "plan", *arguments(args), "--json"]
        line += [f"--gpu={CARD}", f"--gpus={item.resolved.nproc}"]
        done = subprocess.run(line, capture_output=True, text=True, env=env)
        if done.returncode:
            return {}
        content: Any = json.loads(done.stdout)
        plans = {None: content} if "engine" in content else content
        totals = {name: plan["device_peak_bytes"]["total"] for name, plan in plans.items()}
        return {None: max(totals.values()), **totals}

    def is_open(item: ModeCandidate) -> bool:
        measures = {name for run in (item.resolved, *item.stages.values()) for name in run.promises}
        return item.resolved.device == "cpu" and bool(measures & {GPU_MEMORY, GPU_MEMORY + BYTES})

    planned, bases = Peaks(), dict[str, dict[str | None, float]]()
    engines = {item.engine for item in comparison.candidates if is_open(item)}
    for item in comparison.candidates:  # mode default first
        if item.mode == BASELINE and item.engine in engines:
            found = bases[item.engine] = peaks(item)
        else:
            found = peaks(item) if is_open(item) and bases[item.engine] else {}
        if is_open(item):
            planned |= {
                (item.mode, item.engine, at): (n, bases[item.engine][None]) for at, n in found.items()
            }
    return planned
