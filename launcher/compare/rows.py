"""A row of the comparison: the repeats of one mode under one engine, read from their run folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import isfinite
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from gearshift.launcher.compare.study import MetricValues, Study, StudyFigures
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.models.base import Goal
from gearshift.models.common.split import SPLIT_FILE
from gearshift.training.callbacks.base import TEST
from gearshift.training.evaluation.early_stopping import Target
from gearshift.training.step_metrics import warmup
from gearshift.training.train_plan import TrainPlan

NOT_RUN = "not run"
"""The error of a row without a run, after an interruption."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class RunMeasurements:
    """One run that took at least a step. Where a line covers several steps, each took their mean."""

    result: Mapping[str, Any]
    """result.json."""
    plan: TrainPlan
    seconds: np.ndarray
    """Of each step."""
    counted_s: np.ndarray
    """Of each step without warm-up; a line that holds a warm-up step is left out whole."""
    units_per_s: float
    """Of the counted steps."""
    losses: Points
    """Seconds of training, evaluations left out, and the loss of each line."""
    evaluations: Sequence[Mapping[str, Any]]
    """The facts of each event "evaluated" of the validation split; their `seconds` are without the
    metrics that only the end of a run has, `at_s` are seconds of training with evaluations."""
    final_s: float
    """Seconds for the metrics that only the end of a run has."""
    reached_at_s: float | None
    """Seconds of training until an evaluation reached the metric of --until; None: never."""

    @property
    def is_whole(self) -> bool:
        """Whether the run took its whole training plan."""
        is_cut = self.plan.stop_after is not None or self.reached_at_s is not None
        return len(self.seconds) >= self.plan.total_steps or not is_cut

    @property
    def planned(self) -> tuple[int, int]:
        """Steps and evaluations of the whole plan; of a run that ended earlier by itself, its own."""
        total = self.plan.total_steps
        taken = len(self.seconds)
        if self.is_whole:
            return taken, len(self.evaluations)
        at_end = bool(self.evaluations) and self.evaluations[-1]["step"] == taken
        return total, self.plan.evaluations(0, total) + (
            at_end and not self.plan.evaluates_at(total)
        )

    def curve(self, metric: str) -> Points:
        """Seconds of training and value, one per evaluation."""
        values = [(item["at_s"], item["metrics"].get(metric)) for item in self.evaluations]
        return [(at, value) for at, value in values if isinstance(value, float | int)]


def read(folder: Path, goal: Target | None = None) -> RunMeasurements | None:
    """The measurements of the run in `folder`; None: it took no step. Reads the disk.

    `goal`: what it was to reach. Raises SettingsError if one of its files is damaged.
    """
    reader = RunReader(folder)
    result = reader.result()
    events = [(line["kind"], line["facts"]) for line in reader.events()]
    lines = [line for line in reader.metrics() if line["kind"] == "train"]
    plan = next((facts for kind, facts in events if kind == "started"), None)
    if result is None or plan is None or not lines:
        return None
    ends, units, each = np.array(
        [[line[key] for key in ("step", "tokens", "step_time_s")] for line in lines]
    ).T
    windows = np.diff(ends, prepend=0).astype(int)
    counted = ends - windows >= warmup(int(ends[-1]))
    counted |= not counted.any()
    seconds = each.repeat(windows)
    counted_s = each[counted].repeat(windows[counted])
    if goal is not None and (best := result["best"]) is not None:
        goal = goal.directed(Goal(best["metric"], best["direction"]))
    evaluations: list[dict[str, Any]] = []
    final_s = 0.0
    at_s = 0.0
    step = 0
    reached_at_s = None
    for kind, item in events:
        if kind != "evaluated":
            continue
        final_s += item.get("final_s", 0.0)
        if item.get("split") != TEST:
            took = item["seconds"] - item.get("final_s", 0.0)
            at_s = at_s + took + float(seconds[step : item["step"]].sum())
            step = item["step"]
            evaluations.append({**item, "seconds": took, "at_s": at_s})
            metrics = {name: float(value) for name, value in item["metrics"].items()}
            if reached_at_s is None and goal and goal.is_reached(metrics):
                reached_at_s = at_s
    losses = zip((windows * each).cumsum().tolist(), (line["loss"] for line in lines), strict=True)
    return RunMeasurements(
        result,
        TrainPlan(**plan),
        seconds,
        counted_s,
        float(np.diff(units, prepend=0)[counted].sum() / counted_s.sum()),
        [(at, loss) for at, loss in losses if isinstance(loss, float | int)],
        evaluations,
        final_s,
        reached_at_s,
    )


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
    extrapolated: Mapping[str, bool] = field(
        default_factory=lambda: {"epoch": False, "total": False}
    )
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


def measured(
    row: ComparisonRow, runs: Sequence[RunMeasurements], has_goal: bool = False
) -> ComparisonRow:
    """`row` with the figures of its `runs`, one per repeat; `has_goal`: they were to reach a metric."""
    first = runs[0]
    plan = runs[0].plan
    result = runs[0].result
    low, middle, high = np.percentile(
        np.concatenate([run.counted_s for run in runs]), (25, 50, 75)
    ).tolist()
    mean = median(float(run.counted_s.mean()) for run in runs)
    means = [fmean(item["seconds"] for item in run.evaluations) for run in runs if run.evaluations]
    steps, results = (median(counts) for counts in zip(*(run.planned for run in runs), strict=True))
    epoch = plan.steps_per_epoch
    evaluation = median(means) if means else None
    times: dict[str, Any] = {}
    if means or not results:  # else no evaluation was timed
        evaluations_s = results * (evaluation or 0.0)
        times = {
            "epoch_s": epoch * mean + evaluations_s * min(1.0, epoch / steps),
            "total_s": steps * mean + evaluations_s + median(run.final_s for run in runs),
            "extrapolated": {
                "epoch": any(len(run.seconds) < epoch for run in runs),
                "total": not all(run.is_whole for run in runs),
            },
        }
    peaks = [run.result["peak_memory_bytes"] for run in runs]
    growth = (peak["host_growth" if peak["device"] is None else "device"] for peak in peaks)
    bests = [run.result["best"] for run in runs if run.result["best"] is not None]
    bests.sort(key=lambda best: float(best["value"]))
    reached = [run.reached_at_s for run in runs if run.reached_at_s is not None]
    last = first.evaluations[-1] if first.evaluations else {}
    return replace(
        row,
        repeats=len(runs),
        **{name: result[name] for name in ("parameters", "architecture", "samples")},
        source=(result.get("data") or {}).get("source"),
        steps=len(first.seconds),
        **{
            name: getattr(plan, name)
            for name in ("global_batch", "total_steps", "steps_per_epoch", "units")
        },
        step_s=middle,
        step_spread_s=(low, high),
        step_mean_s=mean,
        evaluation_s=evaluation,
        **times,
        samples_per_s=plan.global_batch / mean,
        units_per_s=median(run.units_per_s for run in runs),
        device_peak_bytes=_largest(peak["device"] for peak in peaks),
        host_peak_bytes=_largest(peak["host"] for peak in peaks),
        peak_memory_bytes=_largest(growth),
        metric=bests[len(bests) // 2] if bests else None,
        evaluated=(last.get("samples"), last.get("split_samples")),
        time_to_metric_s=median(reached) if len(reached) == len(runs) else None,
        never_reached=has_goal and len(reached) < len(runs),
        curve=first.curve(result["best"]["metric"]) if result["best"] else (),
        losses=first.losses,
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


def figures(
    study: Study,
    runs: Mapping[str, tuple[Path, RunMeasurements | None]],
    failed: Mapping[str, str],
    reference: tuple[str, StudyFigures] | None = None,
) -> StudyFigures:
    """The figures of one candidate, from the folders and measurements of its finished runs by round.

    `reference`: name and figures of what it is compared with. Reads the disk. Raises SettingsError
    if a file is damaged.
    """
    values = defaultdict[str, dict[str, float]](dict)
    groups: dict[str, str | None] = {}
    goal = None
    less_is_better = False
    for name, (folder, run) in runs.items():
        validating = (RunReader(folder).object(SPLIT_FILE) or {}).get("val")
        groups[name] = validating and sha256(repr(validating).encode()).hexdigest()[:16]
        if run is None or not run.evaluations:
            continue
        metrics = run.evaluations[-1]["metrics"]
        if best := run.result["best"]:
            goal = best["metric"]
            less_is_better = best["direction"] == "min"
            metrics = {e["step"]: e["metrics"] for e in run.evaluations}.get(best["step"], metrics)
            metrics = {**metrics, goal: best["value"]}
        for metric, value in metrics.items():
            values[metric] |= {name: float(value)} if isfinite(float(value)) else {}
    other, theirs = reference or (None, None)
    differences = {}
    for metric, ours in values.items():
        known = theirs.metrics[metric].values if theirs and metric in theirs.metrics else {}
        if paired := study.mean(
            {at: value - known[at] for at, value in ours.items() if at in known}
        ):
            differences[metric] = paired
    means = {metric: MetricValues(study.mean(each), each) for metric, each in values.items()}
    planned = len(study.rounds)
    finished = len(runs)
    return StudyFigures(
        goal, less_is_better, planned, finished, failed, groups, means, other, differences
    )
