"""A row of the comparison: the repeats of one mode under one engine, summarized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

import numpy as np

from launcher.compare.measurements import Points, RunMeasurements
from launcher.compare.study import StudyFigures

NOT_RUN = "not run"
"""The error of a row without a run, after an interruption."""


@dataclass(frozen=True)
class PromiseResult:
    """One promise and its measurement."""

    name: str
    promised: Mapping[str, Any]
    """`at_least` and `at_most`, and their scope."""
    measured: float | None
    """A ratio to mode default, or bytes; None: neither measured nor planned."""
    kept: bool | None
    """None: not measured."""
    why: str | None = None
    """Why it was not measured, or where it was planned."""
    planned: bool = False
    """Whether a plan on a GPU gives the figure, as there is none here."""


@dataclass(frozen=True)
class ComparisonRow:
    """The figures of one mode under one engine, as in compare.json; None: not measured."""

    model: str
    mode: str
    engine: str
    stage: str | None = None
    """A stage of staged training; None: the whole mode."""
    error: str | None = None
    """Why the run failed; None: it did not."""
    notes: Sequence[str] = ()
    """Values adapted to this machine."""
    repeats: int = 0
    parameters: int | None = None
    architecture: str | None = None
    samples: int | None = None
    source: str | None = None
    """The data, by its name or path."""
    global_batch: int | None = None
    steps: int | None = None
    """Taken per repeat; `total_steps` are those of the whole training plan."""
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    step_s: float | None = None
    """Median over the steps of all repeats, without warm-up; `step_spread_s` are their quartiles."""
    step_spread_s: tuple[float, float] | None = None
    step_mean_s: float | None = None
    """Mean step of the median repeat, from which longer times are computed."""
    evaluation_s: float | None = None
    epoch_s: float | None = None
    """All steps of an epoch, plus its share of the evaluations."""
    total_s: float | None = None
    """All steps and evaluations of the training plan."""
    extrapolated: Mapping[str, bool] = field(default_factory=lambda: {"epoch": False, "total": False})
    """Which times are extrapolated from the steps taken."""
    samples_per_s: float | None = None
    units_per_s: float | None = None
    units: str = "units"
    device_peak_bytes: int | None = None
    host_peak_bytes: int | None = None
    peak_memory_bytes: int | None = None
    """Device memory; on a CPU the growth of resident memory since before data and model."""
    metric: Mapping[str, Any] | None = None
    """The best evaluation: metric, value, step, direction."""
    evaluated: tuple[int | None, int | None] = (None, None)
    """Samples of an evaluation, and of the split."""
    study: StudyFigures | None = None
    """None: there are no folds and seeds, or it is a stage."""
    time_to_metric_s: float | None = None
    never_reached: bool = False
    curve: Points = ()
    """Seconds of training and metric, of the first repeat."""
    losses: Points = ()
    folders: Sequence[str] = ()
    promises: Sequence[PromiseResult] = ()
    unpromised: Mapping[str, str] = field(default_factory=dict)
    """By measure, why a promise is outside of its scope."""

    @property
    def name(self) -> str:
        """Mode, engine and stage."""
        return f"{self.mode} {self.engine}" + (f" · {self.stage}" if self.stage else "")


def measured(row: ComparisonRow, runs: Sequence[RunMeasurements], has_goal: bool = False) -> ComparisonRow:
    """`row` with the figures of its `runs`, one per repeat; `has_goal`: they were to reach a metric."""
    first, plan, result = runs[0], runs[0].plan, runs[0].result
    low, middle, high = np.percentile(np.concatenate([run.counted_s for run in runs]), (25, 50, 75)).tolist()
    mean = median(float(run.counted_s.mean()) for run in runs)
    means = [fmean(item["seconds"] for item in run.evaluations) for run in runs if run.evaluations]
    steps, results = (median(counts) for counts in zip(*(run.planned for run in runs), strict=True))
    times: dict[str, Any] = {}
    if means or not results:  # else no evaluation was timed
        evaluations_s = results * median(means or [0.0])
        times = {
            "epoch_s": plan.steps_per_epoch * mean + evaluations_s * min(1.0, plan.steps_per_epoch / steps),
            "total_s": steps * mean + evaluations_s + median(run.final_s for run in runs),
            "extrapolated": {
                "epoch": any(len(run.seconds) < plan.steps_per_epoch for run in runs),
                "total": not all(run.is_whole for run in runs),
            },
        }
    peaks = [run.result["peak_memory_bytes"] for run in runs]
    growth = [peak["host_growth"] if peak["device"] is None else peak["device"] for peak in peaks]
    bests = [run.result["best"] for run in runs if run.result["best"] is not None]
    bests.sort(key=lambda best: float(best["value"]))
    reached = [run.reached_at_s for run in runs if run.reached_at_s is not None]
    last = first.evaluations[-1] if first.evaluations else {}
    return replace(
        row,
        repeats=len(runs),
        **{name: result[name] for name in ("parameters", "architecture", "samples")},
        source=(result.get("data") or {}).get("source"),
        global_batch=plan.global_batch,
        steps=len(first.seconds),
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        step_s=middle,
        step_spread_s=(low, high),
        step_mean_s=mean,
        evaluation_s=median(means) if means else None,
        samples_per_s=plan.global_batch / mean,
        units_per_s=median(run.units_per_s for run in runs),
        units=plan.units,
        device_peak_bytes=_largest(peak["device"] for peak in peaks),
        host_peak_bytes=_largest(peak["host"] for peak in peaks),
        peak_memory_bytes=_largest(growth),
        metric=bests[len(bests) // 2] if bests else None,
        evaluated=(last.get("samples"), last.get("split_samples")),
        time_to_metric_s=median(reached) if len(reached) == len(runs) else None,
        never_reached=has_goal and len(reached) < len(runs),
        curve=first.curve(result["best"]["metric"]) if result["best"] else (),
        losses=first.losses,
        **times,
    )


def staged(row: ComparisonRow, stages: Sequence[ComparisonRow]) -> ComparisonRow:
    """The `row` of staged training: total time of all stages, memory of the largest."""
    times = [item.total_s for item in stages if item.total_s is not None]
    of_last = ("samples", "source", "global_batch", "metric", "evaluated", "never_reached")
    largest = ("parameters", "device_peak_bytes", "host_peak_bytes", "peak_memory_bytes")
    fields: dict[str, Any] = {name: getattr(stages[-1], name) for name in of_last}
    fields |= {name: _largest(getattr(item, name) for item in stages) for name in largest}
    return replace(
        row,
        repeats=min(item.repeats for item in stages),
        total_s=sum(times) if len(times) == len(stages) else None,
        extrapolated={"epoch": False, "total": any(item.extrapolated["total"] for item in stages)},
        **fields,
    )


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
