"""Shows a run in TensorBoard: RUN/tensorboard holds curves, pictures, texts and settings."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics
from training.logging.metrics import NAME as METRICS
from training.trackers.metrics_reader import STEP, MetricsReader, row
from training.trackers.predictions import predictions_table, settings_table
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from models.base import Picture, Predictions
    from training.trackers.base import TrackedRun
    from training.trackers.event_file import EventFile

FOLDER = "tensorboard"
_BRIEF_S = 3.0
"""How long a run that is to end now waits for what is left to be written."""


def tracker(tracked: TrackedRun, detail: str | None) -> Callback:
    """The hook; nothing is imported or written before the run starts. There is no `detail`."""
    return TensorBoard(tracked)


class TensorBoard(Callback):
    """Writes a file of events for each life of a run, by a thread. Touches disk; never raises."""

    def __init__(self, tracked: TrackedRun) -> None:
        self._tracked, self._wait_s = tracked, tracked.tracking.wait_s
        self._file: EventFile | None = None
        self._errands: WriteQueue | None = None
        self._metrics = tracked.folder / METRICS
        self._lines: MetricsReader | None = None
        self._has_ended = self._has_warned = False

    def start(self, train_plan: TrainPlan) -> None:
        """Begin a file that goes on where the run does."""
        first, before = train_plan.first_step, _size(self._metrics)
        self._errands = WriteQueue("tensorboard", self._flush)
        # At step 0 nothing of an earlier life counts, not even what it told before its first step.
        self._errands.add(lambda: self._open(first + 1 if first else 0, before))
        tracked = self._tracked
        table = settings_table(tracked.settings, tracked.origins)
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
        table = predictions_table(predictions)
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
        self._lines = MetricsReader(self._metrics)
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


Errand = Callable[[], None]
MOST = 4096
"""Errands that wait; beyond, the disk or server is so slow that new ones are dropped."""


class WriteQueue:
    """Does errands in a thread until one fails; neither `add` nor the thread ever raises."""

    def __init__(self, name: str, idle: Errand) -> None:
        """`idle` is done whenever nothing is left to do, such as writing to disk."""
        self._idle = idle
        self._waiting: deque[Errand] = deque()
        self._changed = threading.Condition()
        self._is_last = False
        self.fault: str | None = None
        """Why nothing is done any more."""
        self.dropped = 0
        """Errands that there was no room for."""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def add(self, errand: Errand) -> None:
        """To be done after all others."""
        with self._changed:
            if self.fault is not None or self._is_last:
                return
            if len(self._waiting) >= MOST:
                self.dropped += 1
                return
            self._waiting.append(errand)
            self._changed.notify()

    def finish(self, last: Errand, within_s: float) -> bool:
        """Do `last` and end; whether all was done within so many seconds."""
        with self._changed:
            self._waiting.append(last)
            self._is_last = True
            self._changed.notify()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self._take():
                pass
        except Exception as fault:  # whatever a tracker does must not end a run
            with self._changed:
                self.fault = f"{type(fault).__name__}: {fault}"
                self._waiting.clear()

    def _take(self) -> bool:
        """Do the next errand; False after the last."""
        with self._changed:
            while not self._waiting:
                if self._is_last:
                    return False
                self._changed.wait()
            errand, is_idle = self._waiting.popleft(), not self._waiting
        errand()
        if is_idle:
            self._idle()
        return True
