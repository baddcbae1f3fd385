"""Shows a run in TensorBoard: RUN/tensorboard holds curves, pictures, texts and settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics, TrainPlan
from training.logging.metrics import NAME as METRICS
from training.trackers import tables
from training.trackers.errands import Errands
from training.trackers.growing import Growing
from training.trackers.rows import STEP, row

if TYPE_CHECKING:
    from models.base import Picture, Predictions
    from training.trackers.event_file import EventFile
    from training.trackers.tracked import Tracked

FOLDER = "tensorboard"
_BRIEF_S = 3.0
"""How long a run that is to end now waits for what is left to be written."""


def tracker(tracked: Tracked, detail: str | None) -> Callback:
    """The hook; nothing is imported or written before the run starts. There is no `detail`."""
    return TensorBoard(tracked)


class TensorBoard(Callback):
    """Writes a file of events for each life of a run, by a thread. Touches disk; never raises."""

    def __init__(self, tracked: Tracked) -> None:
        self._tracked, self._wait_s = tracked, tracked.tracking.wait_s
        self._file: EventFile | None = None
        self._errands: Errands | None = None
        self._metrics = tracked.folder / METRICS
        self._lines: Growing | None = None
        self._has_ended = self._has_warned = False

    def start(self, train_plan: TrainPlan) -> None:
        """Begin a file that goes on where the run does."""
        first, before = train_plan.first_step, _size(self._metrics)
        self._errands = Errands("tensorboard", self._flush)
        # At step 0 nothing of an earlier life counts, not even what it told before its first step.
        self._errands.add(lambda: self._open(first + 1 if first else 0, before))
        tracked = self._tracked
        table = tables.settings(tracked.settings, tracked.origins)
        self._add(lambda file: file.settings(tracked.settings))
        self._add(lambda file: file.text("run/settings", table, first))

    def logged(self, line: StepMetrics) -> None:
        """A point of each curve, as the new line of metrics.jsonl has it."""
        self._add(self._draw)

    def evaluated(self, evaluation: EvalResult) -> Action:
        """A point for each metric, and one for how long it took."""
        self._add(self._draw)
        if evaluation.split == "val":
            spent = {"time/eval_s": evaluation.seconds}
            self._add(lambda file: file.scalars(spent, evaluation.step))
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Pictures, and the table as text."""
        for picture in predictions.pictures:
            self._picture(picture, step)
        table = tables.predictions(predictions)
        self._add(lambda file: file.text("samples/table", table, step))

    def end(self, outcome: Outcome) -> None:
        """Wait for what is left to be written, a completed run longer than one that was stopped."""
        if self._errands is None:
            return
        is_over = outcome.exit_code not in (75, 130)
        completed = outcome.status == "completed"
        if is_over:
            self._add(lambda file: file.ended(completed))
        within_s = self._wait_s if completed else min(self._wait_s, _BRIEF_S)
        is_done = self._errands.finish(self._close, within_s)
        self._has_ended = True
        if not is_done:
            self._warn(f"not all was written within {within_s:g} s")
        self._look()

    def _picture(self, picture: Picture, step: int) -> None:
        self._add(lambda file: file.picture(f"samples/{picture.name}", picture.png, step))

    def _add(self, write: Callable[[EventFile], Any]) -> None:
        """Let the thread do it; and tell what went wrong there since the last time."""
        if self._errands is not None:
            self._errands.add(lambda: self._write(write))
            self._look()

    def _look(self) -> None:
        assert self._errands is not None
        if self._errands.fault is not None:
            self._warn(self._errands.fault)
        elif self._errands.dropped:
            self._warn("writing is so slow that parts are left out")

    def _warn(self, fault: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        text = f"TensorBoard does not show all of this run: {fault}"
        if self._has_ended:
            self._tracked.say("warning", text)
        else:
            self._tracked.tell("warning", {"text": text})

    # What follows runs in the thread.

    def _open(self, goes_on_at: int, drawn: int) -> None:
        from training.trackers.event_file import EventFile  # takes a fifth of a second

        self._file = EventFile(self._tracked.folder / FOLDER, goes_on_at)
        self._lines = Growing(self._metrics)
        self._lines.lines(drawn)

    def _draw(self, file: EventFile) -> None:
        """Every new line of the metrics file, as far as it has come by now."""
        assert self._lines is not None
        for line in self._lines.lines(_size(self._metrics)):
            points = row(line)
            file.scalars(points, int(points.pop(STEP)))

    def _write(self, write: Callable[[EventFile], Any]) -> None:
        assert self._file is not None, "it was opened first"
        write(self._file)

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _size(path: Path) -> int:
    """In bytes; 0 where there is no such file: the run will say so itself."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
