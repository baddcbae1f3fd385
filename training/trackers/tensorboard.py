"""TensorBoard: RUN/tensorboard with curves, pictures, texts and settings."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics
from training.logging.metrics import NAME as METRICS
from training.trackers.base import TrackedRun, failure_of
from training.trackers.metrics_reader import STEP, MetricsReader, chart_values
from training.trackers.predictions import predictions_table, settings_table
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from models.base import Predictions

FOLDER = "tensorboard"
_FLUSH_S = 5


def tracker(run: TrackedRun, detail: str | None) -> Callback:
    """The callback; imports and writes nothing before the run starts. There is no `detail`."""
    return TensorBoard(run)


class TensorBoard(Callback):
    """Writes one event file per generation of a run. Touches disk; never raises.

    The first failure is a warning, and nothing is written after it.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run, self._lines = run, MetricsReader(run.folder / METRICS)
        self._writer: Any = None
        self._has_ended = False

    def start(self, train_plan: TrainPlan) -> None:
        """Start a file that continues at the first step of this process."""
        first = train_plan.first_step

        def open_file() -> None:
            from torch.utils.tensorboard import SummaryWriter  # takes most of a second
            from torch.utils.tensorboard.summary import hparams

            folder = self._run.folder / FOLDER
            folder.mkdir(exist_ok=True)
            self._lines.lines()  # of earlier processes
            # At step 0 all earlier files are void, with what they hold of before the first step.
            self._writer = SummaryWriter(
                str(folder), purge_step=first + 1 if first else 0, max_queue=0, flush_secs=_FLUSH_S
            )
            settings = {
                key: value if type(value) in (int, float, str) else json.dumps(value, default=str)
                for key, value in self._run.settings.items()
            }
            # add_hparams would write them as another run.
            _, start, self._end = hparams(settings, {})
            self._writer.file_writer.add_summary(start)
            table = settings_table(self._run.settings, self._run.origins)
            self._writer.add_text("run/settings", table, first)

        self._try(open_file)

    def logged(self, line: StepMetrics) -> None:
        """A point of each curve, as in the new line of metrics.jsonl."""
        self._write(self._add_curves)

    def evaluated(self, evaluation: EvalResult) -> Action:
        """A point per metric, and one for the duration."""
        self._write(self._add_curves)
        if evaluation.split == "val":
            self._write(
                lambda: self._writer.add_scalar("time/eval_s", evaluation.seconds, evaluation.step)
            )
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Pictures, and the table as text."""

        def add() -> None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            for picture in predictions.pictures:  # add_image would decode and encode it again
                width, height = struct.unpack(">II", picture.png[16:24])  # of the PNG header
                image = Summary.Image(
                    width=width, height=height, colorspace=3, encoded_image_string=picture.png
                )
                value = Summary.Value(tag=f"samples/{picture.name}", image=image)
                self._writer.file_writer.add_summary(Summary(value=[value]), step)
            self._writer.add_text("samples/table", predictions_table(predictions), step)

        self._write(add)

    def end(self, outcome: Outcome) -> None:
        """Write the rest."""
        self._has_ended = True
        if outcome.status == "completed":
            self._write(lambda: self._writer.file_writer.add_summary(self._end))
        self._write(lambda: self._writer.close())

    def _add_curves(self) -> None:
        """The points of all new lines of the metrics file."""
        for line in self._lines.lines():
            points = chart_values(line)
            step = int(points.pop(STEP))
            for tag, value in points.items():
                self._writer.add_scalar(tag, value, step)

    def _write(self, action: Callable[[], object]) -> None:
        if self._writer is not None:
            self._try(action)

    def _try(self, action: Callable[[], object]) -> None:
        error = failure_of(action)
        if error is None:
            return
        self._writer = None
        text = f"TensorBoard does not show all of this run: {error}"
        if self._has_ended:
            self._run.report("warning", text)
        else:
            self._run.emit("warning", {"text": text})
