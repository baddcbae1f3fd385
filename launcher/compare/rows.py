"""A row of the comparison: the repeats of a mode under an engine, read from their run folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np

from gearshift.launcher.compare.study import Study, StudyFigures
from gearshift.launcher.report.page import thinned
from gearshift.launcher.run_folder.reader import RunReader, validation_groups
from gearshift.models.base import Goal
from gearshift.training.callbacks.base import TEST, Facts
from gearshift.training.evaluation.early_stopping import Target
from gearshift.training.step_metrics import warmup
from gearshift.training.train_plan import TrainPlan

NOT_RUN = "not run"
"""The error of a row without a run, after an interruption."""
Points = Sequence[tuple[float, float]]
_MOST_POINTS = 200
"""Points of a curve."""


@dataclass(frozen=True)
class RunMeasurements:
    """One run that took at least a step. Of several steps in a line, each took their mean."""

    result: Facts
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
    evaluations: Sequence[Facts]
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
        """Steps and evaluations of the whole plan; of a run that ended by itself, its own."""
        steps = len(self.seconds)
        if self.is_whole:
            return steps, len(self.evaluations)
        total = self.plan.total_steps
        evaluations = self.plan.evaluations(0, total)
        # The last step is evaluated in any case, unless nothing is.
        if self.evaluations and not self.plan.evaluates_at(total):
            evaluations += 1
        return total, evaluations

    def curve(self, metric: str) -> Points:
        """Seconds of training and value, one per evaluation that has the metric."""
        return [
            (evaluation["at_s"], float(evaluation["metrics"][metric]))
            for evaluation in self.evaluations
            if metric in evaluation["metrics"]
        ]


def read(folder: Path, goal: Target | None = None) -> RunMeasurements | None:
    """The measurements of the run in `folder`; None: it took no step. Reads the disk.

    `goal`: what it was to reach. Raises SettingsError if one of its files is damaged.
    """
    reader = RunReader(folder)
    result = reader.result()
    plan = None
    evaluated = []
    for event in reader.events():
        if event["kind"] == "started" and not plan:
            plan = TrainPlan(**event["facts"])
        elif event["kind"] == "evaluated" and event["facts"].get("split") != TEST:
            evaluated.append(event["facts"])
    lines = [line for line in reader.metrics() if line["kind"] == "train"]
    if not result or not plan or not lines:
        return None

    columns = [(line["step"], line["tokens"], line["step_time_s"]) for line in lines]
    ends, units, step_s = np.array(columns).T
    # A line has the mean of the steps since the line before.
    windows = np.diff(ends, prepend=0).astype(int)
    is_counted = ends - windows >= warmup(int(ends[-1]))
    # A short run has no step after its warm-up.
    if not is_counted.any():
        is_counted[:] = True
    counted_s = step_s[is_counted].repeat(windows[is_counted])
    counted_units = np.diff(units, prepend=0)[is_counted].sum()
    line_ends_s = (windows * step_s).cumsum().tolist()

    best = result["best"]
    if goal and best:
        goal = goal.directed(Goal(best["metric"], best["direction"]))
    seconds = step_s.repeat(windows)
    evaluations = _timed(evaluated, seconds)
    reached_at_s = None
    for evaluation in reversed(evaluations):
        metrics = {name: float(value) for name, value in evaluation["metrics"].items()}
        if goal and goal.is_reached(metrics):
            reached_at_s = evaluation["at_s"]
    return RunMeasurements(
        result,
        plan,
        seconds=seconds,
        counted_s=counted_s,
        units_per_s=float(counted_units / counted_s.sum()),
        losses=[(at, float(line["loss"])) for at, line in zip(line_ends_s, lines, strict=True)],
        evaluations=evaluations,
        final_s=sum(facts.get("final_s", 0.0) for facts in evaluated),
        reached_at_s=reached_at_s,
    )


def _timed(evaluated: Iterable[Facts], seconds: np.ndarray) -> list[Facts]:
    """Evaluations with their own seconds, and with those of training until their end."""
    evaluations: list[Facts] = []
    evaluations_s = 0.0
    for facts in evaluated:
        own_s = facts["seconds"] - facts.get("final_s", 0.0)
        evaluations_s += own_s
        at_s = float(seconds[: facts["step"]].sum()) + evaluations_s
        evaluations.append({**facts, "seconds": own_s, "at_s": at_s})
    return evaluations


Rounds = Mapping[str, tuple[Path, RunMeasurements | None]]
"""The folders and measurements of the ended runs of a candidate, by round; None: no step."""


@dataclass(frozen=True)
class PromiseResult:
    """One promise and its measurement."""

    name: str
    promised: Facts
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
    parameters: int | None = None
    samples: int | None = None
    source: str | None = None
    """The data, by its name or path."""
    global_batch: int | None = None
    steps: int | None = None
    """Taken per repeat; `total_steps` are those of the whole training plan."""
    total_steps: int | None = None
    step_s: float | None = None
    """Median over the steps of all repeats without warm-up; `step_spread_s` are the quartiles."""
    step_spread_s: tuple[float, float] | None = None
    step_mean_s: float | None = None
    """Mean step of the median repeat, from which longer times are computed."""
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
    metric: Facts | None = None
    """The best evaluation: metric, value, step, direction."""
    baseline: float | None = None
    """What a simple method reaches of that metric: the mean over repeats, seeds and folds."""
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
        name = f"{self.mode} {self.engine}"
        return f"{name} · {self.stage}" if self.stage else name


def measured(
    row: ComparisonRow, runs: Sequence[RunMeasurements], has_goal: bool = False
) -> ComparisonRow:
    """`row` with the figures of its `runs`, one per repeat.

    `has_goal`: they were to reach a metric.
    """
    first = runs[0]
    plan = first.plan
    result = first.result
    best = result["best"]
    steps_s = [run.counted_s for run in runs]
    low, middle, high = np.percentile(np.concatenate(steps_s), (25, 50, 75)).tolist()
    # Of the repeat in the middle: a slow one does not decide.
    mean = median(float(step_s.mean()) for step_s in steps_s)
    reached = [run.reached_at_s for run in runs if run.reached_at_s is not None]
    last = first.evaluations[-1] if first.evaluations else {}
    peaks = [run.result["peak_memory_bytes"] for run in runs]
    device = _largest(peaks, "device")
    row = replace(
        row,
        parameters=result["parameters"],
        samples=result["samples"],
        source=(result.get("data") or {}).get("source"),
        global_batch=plan.global_batch,
        steps=len(first.seconds),
        total_steps=plan.total_steps if plan.has_length else len(first.seconds),
        step_s=middle,
        step_spread_s=(low, high),
        step_mean_s=mean,
        samples_per_s=plan.global_batch / mean,
        units_per_s=median(run.units_per_s for run in runs),
        units=plan.units,
        metric=_median_best(runs),
        baseline=_mean_baseline(runs),
        evaluated=(last.get("samples"), last.get("split_samples")),
        time_to_metric_s=median(reached) if len(reached) == len(runs) else None,
        never_reached=has_goal and len(reached) < len(runs),
        curve=thinned(first.curve(best["metric"]), _MOST_POINTS) if best else (),
        losses=thinned(first.losses, _MOST_POINTS),
        device_peak_bytes=device,
        host_peak_bytes=_largest(peaks, "host"),
        peak_memory_bytes=_largest(peaks, "host_growth") if device is None else device,
    )
    return _with_times(row, mean, runs)


def _with_times(
    row: ComparisonRow, step_s: float, runs: Sequence[RunMeasurements]
) -> ComparisonRow:
    """`row` with the times of an epoch and of the whole plan, where an evaluation was timed."""
    epoch = runs[0].plan.steps_per_epoch
    planned = [run.planned for run in runs]
    steps, evaluations = map(median, zip(*planned, strict=True))
    means = []
    for run in runs:
        if run.evaluations:
            means.append(fmean(evaluation["seconds"] for evaluation in run.evaluations))
    if evaluations and not means:
        return row  # no evaluation was timed
    evaluations_s = evaluations * median(means) if means else 0.0
    final_s = median(run.final_s for run in runs)
    return replace(
        row,
        epoch_s=epoch * step_s + evaluations_s * min(1.0, epoch / steps),
        total_s=steps * step_s + evaluations_s + final_s,
        extrapolated={
            "epoch": any(len(run.seconds) < epoch for run in runs),
            "total": not all(run.is_whole for run in runs),
        },
    )


def _median_best(runs: Sequence[RunMeasurements]) -> Facts | None:
    """The best evaluation of the repeat in the middle."""
    bests = [run.result["best"] for run in runs if run.result["best"]]
    bests.sort(key=lambda best: float(best["value"]))
    return bests[len(bests) // 2] if bests else None


def _mean_baseline(runs: Sequence[RunMeasurements]) -> float | None:
    baselines = [(run.result["best"] or {}).get("baseline") for run in runs]
    values = [float(baseline["value"]) for baseline in baselines if baseline]
    return fmean(values) if values else None


def staged(row: ComparisonRow, stages: Sequence[ComparisonRow]) -> ComparisonRow:
    """The `row` of staged training: total time of all stages, memory of the largest."""
    last = stages[-1]
    parts = [vars(stage) for stage in stages]
    totals = [stage.total_s for stage in stages]
    is_extrapolated = any(stage.extrapolated["total"] for stage in stages)
    return replace(
        row,
        parameters=_largest(parts, "parameters"),
        samples=last.samples,
        source=last.source,
        global_batch=last.global_batch,
        total_s=None if None in totals else sum(filter(None, totals)),
        extrapolated={"epoch": False, "total": is_extrapolated},
        device_peak_bytes=_largest(parts, "device_peak_bytes"),
        host_peak_bytes=_largest(parts, "host_peak_bytes"),
        peak_memory_bytes=_largest(parts, "peak_memory_bytes"),
        metric=last.metric,
        baseline=last.baseline,
        evaluated=last.evaluated,
        never_reached=last.never_reached,
    )


def _largest(parts: Sequence[Facts], key: str) -> int | None:
    values = [part[key] for part in parts if part[key] is not None]
    return max(values, default=None)


def figures(
    study: Study,
    runs: Rounds,
    failed: Mapping[str, str],
    reference: ComparisonRow | None = None,
) -> StudyFigures:
    """The figures of one candidate, from folders and measurements of its finished runs by round.

    `reference`: the row that it is compared with. Reads the disk. Raises SettingsError
    if a file is damaged.
    """
    values = {}
    groups = {}
    best: Facts = {}
    for name, (folder, run) in runs.items():
        groups[name] = validation_groups(RunReader(folder))
        if run and run.result["best"]:
            best = run.result["best"]
            values[name] = float(best["value"])

    base = reference.study if reference else None
    gaps = {}
    if base:
        common = [name for name in values if name in base.values]
        gaps = {name: values[name] - base.values[name] for name in common}
    return StudyFigures(
        best.get("metric"),
        best.get("direction") == "min",
        planned=len(study.rounds),
        finished=len(runs),
        failed=failed,
        groups=groups,
        values=values,
        estimate=study.mean(values),
        reference=reference.name if reference else None,
        difference=study.mean(gaps),
    )
