"""Times, memory and training plan of one run, read from its run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import lcm
from operator import floordiv, truediv
from pathlib import Path
from statistics import fmean
from typing import Any

from launcher.run_folder.reader import RunReader
from models.base import Goal
from training.callbacks.base import TEST
from training.evaluation.early_stopping import Target
from training.step_metrics import warmup


@dataclass(frozen=True)
class MeasuredStep:
    """One step from metrics.jsonl; the mean where a line covers several steps."""

    seconds: float
    units: float
    loss: float | None
    """None: another step of the same line holds it."""
    window: int
    """Steps that the line covers."""


@dataclass(frozen=True)
class RunMeasurements:
    """One run that took at least a step."""

    result: Mapping[str, Any]
    """result.json."""
    plan: Mapping[str, Any]
    """The fields of its TrainPlan."""
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
        cut = self.plan["stop_after"] is not None or self.reached_at_s is not None
        return len(self.steps) >= self.plan["total_steps"] or not cut

    @property
    def counted(self) -> Sequence[MeasuredStep]:
        """The steps without warm-up; a line that holds a warm-up step is left out whole."""
        left = warmup(len(self.steps))
        at = 0
        while at < left:
            at += max(1, self.steps[at].window)
        return self.steps[at:] or self.steps

    @property
    def mean_s(self) -> float:
        """Mean seconds per step, late batches included."""
        return fmean(step.seconds for step in self.counted)

    @property
    def evaluation_s(self) -> float | None:
        """Mean seconds of an evaluation; None: no evaluation."""
        return fmean(item["seconds"] for item in self.evaluations) if self.evaluations else None

    @property
    def planned_steps(self) -> int:
        """Steps of the whole plan; of a run that ended earlier by itself, the steps it took."""
        return len(self.steps) if self.is_whole else self.plan["total_steps"]

    @property
    def planned_evaluations(self) -> int:
        """Evaluations in the whole plan, with the one at its end."""
        if self.is_whole:
            return len(self.evaluations)
        total = self.plan["total_steps"]
        evaluated_at_end = any(item["step"] == len(self.steps) for item in self.evaluations)
        due_at_end = any(total % every == 0 for every in self._cadences)
        return int(self._due(total, floordiv)) + int(evaluated_at_end and not due_at_end)

    @property
    def evaluations_per_epoch(self) -> float:
        """Evaluations per epoch; at most one where only the end is evaluated."""
        per_epoch = self.plan["steps_per_epoch"]
        if not self._cadences:
            return self.planned_evaluations * min(1.0, per_epoch / self.planned_steps)
        return self._due(per_epoch, truediv)

    @property
    def _cadences(self) -> list[int]:
        """Steps between evaluations, one number per cadence."""
        each_epoch = self.plan["steps_per_epoch"] if self.plan["eval_each_epoch"] else None
        return [every for every in (self.plan["eval_every"], each_epoch) if every]

    def _due(self, steps: int, divide: Callable[[int, int], float]) -> float:
        """Evaluations that are due in so many steps; those of both cadences count once."""
        both = divide(steps, lcm(*self._cadences)) if len(self._cadences) == 2 else 0
        return sum(divide(steps, every) for every in self._cadences) - both

    def seconds_until(self, step: int) -> float:
        """Seconds of training up to `step`, evaluations included."""
        times = list(accumulate((item.seconds for item in self.steps), initial=0.0))
        results = sum(item["seconds"] for item in self.evaluations if item["step"] <= step)
        return times[min(step, len(self.steps))] + results

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """Points (seconds, value), one per evaluation."""
        return [
            (self.seconds_until(item["step"]), item["metrics"][metric])
            for item in self.evaluations
            if isinstance(item["metrics"].get(metric), float | int)
        ]

    def losses(self) -> list[tuple[float, float]]:
        """Points (seconds, training loss), one per logged step."""
        times = list(accumulate(step.seconds for step in self.steps))
        return [(t, s.loss) for t, s in zip(times, self.steps, strict=True) if s.loss is not None]


def read(folder: Path, goal: Target | None = None) -> RunMeasurements | None:
    """The measurements of the run in `folder`; None: it took no step. Reads the disk.

    `goal`: what it was to reach. Raises SettingsError if one of its files is damaged.
    """
    result = RunReader(folder).result()
    metrics = RunReader(folder).metrics()
    events = list(RunReader(folder).events())
    plan = next((line["facts"] for line in events if line["kind"] == "started"), None)
    steps = list(_steps([line for line in metrics if line["kind"] == "train"]))
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
    return RunMeasurements(result, plan, steps, evaluations, goal, final_s)


def _steps(lines: Sequence[Mapping[str, Any]]) -> Iterator[MeasuredStep]:
    before, units = 0, 0
    for line in lines:
        window = line["step"] - before
        loss = line["loss"] if isinstance(line["loss"], float | int) else None
        each = (line["tokens"] - units) / max(window, 1)
        for left in reversed(range(window)):
            shown = None if left else loss
            yield MeasuredStep(line["step_time_s"], each, shown, window)
        before, units = line["step"], line["tokens"]
