"""What was predicted of a run, beside what it took: peak memory and duration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from training.callbacks.base import Action, Callback, EvalResult, Outcome, Step
from training.logging.progress import Progress
from training.train_plan import TrainPlan

LONG_S = 24 * 3600.0
"""A run that takes longer says so."""
MEASURED_STEPS = 3
"""Steps after the first, which warms up; the duration is predicted from them."""
Peaks = Mapping[str, int | None]
Emit = Callable[[str, Mapping[str, object]], None]


class Forecast(Callback):
    """Keeps the predictions until the end of the run; for rank 0, before those who report them.

    The duration is predicted after a few steps, and again when the first evaluation and the first
    save have been measured.
    """

    def __init__(
        self,
        planned_peaks: Callable[[], Peaks | None] = lambda: None,
        quicker: Callable[[], Sequence[str]] = lambda: (),
        emit: Emit = lambda kind, facts: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`planned_peaks` gives, at the end, the predicted peaks of memory; None: unknown.

        `quicker` gives options for shorter runs, and `emit` records an event: of a long run.
        """
        self._planned_peaks, self._quicker, self._emit = planned_peaks, quicker, emit
        self._now = now
        self._progress: Progress | None = None
        self._measured_at = 0
        self._first: dict[str, int] = {}
        """The step of the first evaluation and save."""
        self._whole_s: float | None = None
        """From the start of this process's training to the end of the run."""
        self.peaks: Peaks | None = None
        """Bytes by `device` and `host`, as Outcome.peak_memory_bytes; None: unknown."""
        self.wall_s: float | None = None
        """As Outcome.wall_s; None: too few steps were measured, or the run did not complete."""
        self.is_least = False
        """`wall_s` leaves out evaluations or saves, because none was measured by then."""

    def start(self, train_plan: TrainPlan) -> None:
        """Note the training plan."""
        self._progress = Progress(train_plan, self._now)
        self._measured_at = train_plan.first_step + 1 + MEASURED_STEPS

    def step(self, step: Step) -> Action:
        """Measure the step; predict the duration after a few."""
        assert self._progress is not None
        self._progress.stepped(step.step)
        if step.step == self._measured_at:
            self._predict()
            if self._whole_s is not None and self._whole_s > LONG_S:
                facts = {"seconds": self._whole_s, "quicker": list(self._quicker())}
                self._emit("long_run", facts)
        return Action.NOTHING

    def evaluated(self, result: EvalResult) -> Action:
        """Measure the evaluation."""
        assert self._progress is not None
        self._progress.evaluated()
        self._measured("evaluation", result.step)
        return Action.NOTHING

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        """Measure the save."""
        assert self._progress is not None
        self._progress.saved(step)
        self._measured("save", step)

    def _measured(self, what: str, step: int) -> None:
        """Predict again, with the first evaluation, which may be of several splits, or save."""
        if self._first.setdefault(what, step) == step and self.is_least:
            self._predict()

    def _predict(self) -> None:
        assert self._progress is not None
        position = self._progress.position()
        if position.remaining_s is not None and position.step < position.total_steps:
            self._whole_s = position.elapsed_s + position.remaining_s
            self.is_least = position.remaining_is_least

    def end(self, outcome: Outcome) -> None:
        """Take the predictions."""
        self.peaks = self._planned_peaks()
        if outcome.status == "completed" and self._whole_s is not None:
            assert self._progress is not None
            before = outcome.wall_s - self._progress.position().elapsed_s  # of a resumed run
            self.wall_s = max(before, 0.0) + self._whole_s
