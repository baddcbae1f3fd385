"""What the folder of one run tells of its times, its memory and its plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import lcm
from pathlib import Path
from statistics import fmean
from typing import Any

from launcher.run_folder import run_folder
from models.base import Goal
from training.evaluation.target import Target
from training.timing import warmup


@dataclass(frozen=True)
class MeasuredStep:
    """One update, as its line in metrics.jsonl tells; of a line over several, their mean."""

    seconds: float
    data_s: float
    """Of it, waiting for batches."""
    units: float
    loss: float | None
    """None: another step of the same line has it."""
    window: int
    """Steps that the line was the mean of."""


@dataclass(frozen=True)
class EvalResult:
    """One evaluation of the validation split."""

    step: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """One run that took at least a step."""

    result: Mapping[str, Any]
    """result.json."""
    plan: Mapping[str, Any]
    """The solved numbers of its whole plan: training.callbacks.base.Budget."""
    steps: Sequence[MeasuredStep]
    evaluations: Sequence[EvalResult]
    aim: Target | None = None
    """What the run was to reach."""

    @property
    def reached_at_s(self) -> float | None:
        """Seconds of training until an evaluation reached the aim; None: none has."""
        for one in self.evaluations:
            if self.aim is not None and self.aim.is_reached(one.metrics):
                return self.seconds_until(one.step)
        return None

    @property
    def is_whole(self) -> bool:
        """Whether nothing of what the mode plans was left out to save time here."""
        cut = self.plan["stop_after"] is not None or self.reached_at_s is not None
        return len(self.steps) >= self.plan["total_steps"] or not cut

    @property
    def counted(self) -> Sequence[MeasuredStep]:
        """The steps without those of the warm-up; a line that holds one of these goes whole."""
        left = warmup(len(self.steps))
        at = 0
        while at < left:
            at += max(1, self.steps[at].window)
        return self.steps[at:] or self.steps

    @property
    def mean_s(self) -> float:
        """Of a step, all that recurs in it counted: a batch that comes late now and then, too."""
        return fmean(step.seconds for step in self.counted)

    @property
    def evaluation_s(self) -> float | None:
        """Mean seconds of an evaluation; None: there was none."""
        return fmean(one.seconds for one in self.evaluations) if self.evaluations else None

    @property
    def planned_steps(self) -> int:
        """Of the whole plan; of a run that ended by itself before, what it took."""
        return len(self.steps) if self.is_whole else self.plan["total_steps"]

    @property
    def planned_evaluations(self) -> int:
        """Those that fall due in the whole plan, and the one at its end."""
        if self.is_whole:
            return len(self.evaluations)
        total = self.plan["total_steps"]
        judged_at_its_end = any(one.step == len(self.steps) for one in self.evaluations)
        fall_due_at_its_end = any(total % every == 0 for every in self._cadences)
        due = sum(total // every for every in self._cadences)
        if len(self._cadences) == 2:
            due -= total // lcm(*self._cadences)  # at the end of an epoch and by its cadence: once
        return due + int(judged_at_its_end and not fall_due_at_its_end)

    @property
    def evaluations_per_epoch(self) -> float:
        """Those that fall due in an epoch; where only the end is evaluated, at most that one."""
        per_epoch = self.plan["steps_per_epoch"]
        if not self._cadences:
            return self.planned_evaluations * min(1.0, per_epoch / self.planned_steps)
        due = sum(per_epoch / every for every in self._cadences)
        return due - per_epoch / lcm(*self._cadences) if len(self._cadences) == 2 else due

    @property
    def _cadences(self) -> list[int]:
        """Steps from one evaluation to the next, of each cadence there is."""
        each_epoch = self.plan["steps_per_epoch"] if self.plan["eval_each_epoch"] else None
        return [every for every in (self.plan["eval_every"], each_epoch) if every]

    def seconds_until(self, step: int) -> float:
        """Training from the first step on, with all evaluations up to that after `step`."""
        times = list(accumulate((one.seconds for one in self.steps), initial=0.0))
        results = sum(one.seconds for one in self.evaluations if one.step <= step)
        return times[min(step, len(self.steps))] + results

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(seconds, value) of each evaluation."""
        return [
            (self.seconds_until(one.step), one.metrics[metric])
            for one in self.evaluations
            if isinstance(one.metrics.get(metric), float | int)
        ]

    def losses(self) -> list[tuple[float, float]]:
        """(seconds, training loss) of each logged step."""
        times = list(accumulate(step.seconds for step in self.steps))
        return [(t, s.loss) for t, s in zip(times, self.steps, strict=True) if s.loss is not None]


def read(folder: Path, aim: Target | None = None) -> Measured | None:
    """What the run in `folder` left; None where it has taken no step. Reads the disk.

    `aim`: what it was to reach.
    """
    result = json.loads((folder / run_folder.RESULT).read_text(encoding="utf-8"))
    metrics = list(_lines(folder / run_folder.METRICS))
    events = list(_lines(folder / run_folder.EVENTS))
    plan = next((line["facts"] for line in events if line["kind"] == "started"), None)
    steps = list(_steps([line for line in metrics if line["kind"] == "train"]))
    if plan is None or not steps:
        return None
    results = [line["facts"] for line in events if line["kind"] == "evaluated"]
    evaluations = [EvalResult(one["step"], one["seconds"], one["metrics"]) for one in results]
    if aim is not None and (best := result["best"]) is not None:
        aim = aim.aimed(Goal(best["metric"], best["direction"]))
    return Measured(result, plan, steps, evaluations, aim)


def _steps(lines: Sequence[Mapping[str, Any]]) -> Iterator[MeasuredStep]:
    before, units = 0, 0
    for line in lines:
        window = line["step"] - before
        loss = line["loss"] if isinstance(line["loss"], float | int) else None
        each = (line["tokens"] - units) / max(window, 1)
        for place in range(window):
            shown = loss if place == window - 1 else None
            yield MeasuredStep(line["step_time_s"], line["data_time_s"], each, shown, window)
        before, units = line["step"], line["tokens"]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # a process that was killed left half a line
            continue
