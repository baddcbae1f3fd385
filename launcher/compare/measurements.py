"""Times, memory and training plan of one run, read from its run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from launcher.run_folder.reader import RunReader
from models.base import Goal
from training.callbacks.base import TEST
from training.evaluation.early_stopping import Target
from training.step_metrics import warmup
from training.train_plan import TrainPlan

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
        total, taken = self.plan.total_steps, len(self.seconds)
        if self.is_whole:
            return taken, len(self.evaluations)
        at_end = bool(self.evaluations) and self.evaluations[-1]["step"] == taken
        return total, self.plan.evaluations(0, total) + (at_end and not self.plan.evaluates_at(total))

    def curve(self, metric: str) -> Points:
        """Seconds of training and value, one per evaluation."""
        values = [(item["at_s"], item["metrics"].get(metric)) for item in self.evaluations]
        return [(at, value) for at, value in values if isinstance(value, float | int)]


def read(folder: Path, goal: Target | None = None) -> RunMeasurements | None:
    """The measurements of the run in `folder`; None: it took no step. Reads the disk.

    `goal`: what it was to reach. Raises SettingsError if one of its files is damaged.
    """
    reader = RunReader(folder)
    result, events = reader.result(), [(line["kind"], line["facts"]) for line in reader.events()]
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
    seconds, counted_s = each.repeat(windows), each[counted].repeat(windows[counted])
    if goal is not None and (best := result["best"]) is not None:
        goal = goal.directed(Goal(best["metric"], best["direction"]))
    evaluations, final_s, at_s, step, reached_at_s = list[dict[str, Any]](), 0.0, 0.0, 0, None
    for kind, item in events:
        if kind != "evaluated":
            continue
        final_s += item.get("final_s", 0.0)
        if item.get("split") != TEST:
            took = item["seconds"] - item.get("final_s", 0.0)
            at_s, step = at_s + took + float(seconds[step : item["step"]].sum()), item["step"]
            evaluations.append({**item, "seconds": took, "at_s": at_s})
            if reached_at_s is None and goal and goal.is_reached(item["metrics"]):
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
