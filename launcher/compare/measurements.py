"""Times, memory and training plan of one run, read from its run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from launcher.run_folder.reader import RunReader
from models.base import Goal
from training.callbacks.base import TEST
from training.evaluation.early_stopping import Target
from training.step_metrics import warmup
from training.train_plan import TrainPlan


class MeasuredStep(NamedTuple):
    """One step from metrics.jsonl; the mean where a line covers a `window` of several steps."""

    seconds: float
    units: float
    loss: float | None
    """None: another step of the same line holds it."""
    window: int


@dataclass(frozen=True)
class RunMeasurements:
    """One run that took at least a step."""

    result: Mapping[str, Any]
    """result.json."""
    plan: TrainPlan
    steps: Sequence[MeasuredStep]
    evaluations: Sequence[Mapping[str, Any]]
    """The facts of each event "evaluated" of the validation split; their `seconds` are without the
    metrics that only the end of a run has."""
    goal: Target | None = None
    """The metric to reach (--until); None: none."""
    final_s: float = 0.0
    """Seconds for the metrics that only the end of a run has."""

    @property
    def reached_at_s(self) -> float | None:
        """Seconds of training until an evaluation reached the goal; None: never."""
        for item in self.evaluations:
            if self.goal is not None and self.goal.is_reached(item["metrics"]):
                return self.seconds_until(item["step"])
        return None

    @property
    def is_whole(self) -> bool:
        """Whether the run took its whole training plan."""
        is_cut = self.plan.stop_after is not None or self.reached_at_s is not None
        return len(self.steps) >= self.plan.total_steps or not is_cut

    @property
    def counted(self) -> Sequence[MeasuredStep]:
        """The steps without warm-up; a line that holds a warm-up step is left out whole."""
        left, at = warmup(len(self.steps)), 0
        while at < left:
            at += max(1, self.steps[at].window)
        return self.steps[at:] or self.steps

    @property
    def mean_s(self) -> float:
        """Mean seconds per step, late batches included."""
        return fmean(step.seconds for step in self.counted)

    @property
    def planned_steps(self) -> int:
        """Steps of the whole plan; of a run that ended earlier by itself, the steps it took."""
        return len(self.steps) if self.is_whole else self.plan.total_steps

    @property
    def planned_evaluations(self) -> int:
        """Evaluations in the whole plan, with the one at its end."""
        if self.is_whole:
            return len(self.evaluations)
        total, last = self.plan.total_steps, self.evaluations[-1]["step"] if self.evaluations else 0
        is_extra = last == len(self.steps) and not self.plan.evaluates_at(total)
        return self.plan.evaluations(0, total) + is_extra

    def seconds_until(self, step: int) -> float:
        """Seconds of training up to `step`, evaluations included."""
        results = sum(item["seconds"] for item in self.evaluations if item["step"] <= step)
        return sum(item.seconds for item in self.steps[:step]) + results

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """Points (seconds, value), one per evaluation."""
        return [
            (self.seconds_until(item["step"]), item["metrics"][metric])
            for item in self.evaluations
            if isinstance(item["metrics"].get(metric), float | int)
        ]

    def losses(self) -> list[tuple[float, float]]:
        """Points (seconds, training loss), one per logged step."""
        times = accumulate(step.seconds for step in self.steps)
        return [(t, s.loss) for t, s in zip(times, self.steps, strict=True) if s.loss is not None]


def read(folder: Path, goal: Target | None = None) -> RunMeasurements | None:
    """The measurements of the run in `folder`; None: it took no step. Reads the disk.

    `goal`: what it was to reach. Raises SettingsError if one of its files is damaged.
    """
    reader = RunReader(folder)
    result, events = reader.result(), list(reader.events())
    plan = next((line["facts"] for line in events if line["kind"] == "started"), None)
    steps = list(_steps([line for line in reader.metrics() if line["kind"] == "train"]))
    if result is None or plan is None or not steps:
        return None
    results = [line["facts"] for line in events if line["kind"] == "evaluated"]
    evaluations = [
        {**item, "seconds": item["seconds"] - item.get("final_s", 0.0)}
        for item in results
        if item.get("split") != TEST
    ]
    if goal is not None and (best := result["best"]) is not None:
        goal = goal.directed(Goal(best["metric"], best["direction"]))
    final_s = sum(item.get("final_s", 0.0) for item in results)
    return RunMeasurements(result, TrainPlan(**plan), steps, evaluations, goal, final_s)


def _steps(lines: Sequence[Mapping[str, Any]]) -> Iterator[MeasuredStep]:
    before, units = 0, 0
    for line in lines:
        window = line["step"] - before
        loss = line["loss"] if isinstance(line["loss"], float | int) else None
        each = (line["tokens"] - units) / max(window, 1)
        for left in reversed(range(window)):
            yield MeasuredStep(line["step_time_s"], each, None if left else loss, window)
        before, units = line["step"], line["tokens"]
