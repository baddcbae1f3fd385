"""TensorBoard: a thread writes RUN/tensorboard with curves, pictures, texts and settings."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics
from training.logging.metrics import NAME as METRICS
from training.trackers.base import TrackedRun, failure_of
from training.trackers.metrics_reader import STEP, MetricsReader, chart_values
from training.trackers.predictions import predictions_table, settings_table
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    from models.base import Picture, Predictions

FOLDER = "tensorboard"
QUEUE_SIZE = 4096
"""Writes that wait; with more, the disk is so slow that new ones are dropped."""
_STOPPED_WAIT_S = 3.0
"""How long a run that was stopped waits for the rest to be written."""


def tracker(run: TrackedRun, detail: str | None) -> Callback:
    """The callback; imports and writes nothing before the run starts. There is no `detail`."""
    return TensorBoard(run)


class TensorBoard(Callback):
    """Writes one event file per generation of a run, in a thread. Touches disk; never raises."""

    def __init__(self, run: TrackedRun) -> None:
        self._run, self._wait_s = run, run.tracking.wait_s
        self._file: EventFile | None = None
        self._queue: WriteQueue | None = None
        self._metrics = run.folder / METRICS
        self._lines: MetricsReader | None = None
        self._has_ended = self._has_warned = False

    def start(self, train_plan: TrainPlan) -> None:
        """Start a file that continues at the first step of this process."""
        first, before = train_plan.first_step, _size(self._metrics)
        self._queue = WriteQueue("tensorboard", self._flush)
        # At step 0 all earlier files are void, with what they hold of before the first step.
        self._queue.add(lambda: self._open(first + 1 if first else 0, before))
        run = self._run
        table = settings_table(run.settings, run.origins)
        self._add(lambda file: file.add_settings(run.settings))
        self._add(lambda file: file.add_text("run/settings", table, first))

    def logged(self, line: StepMetrics) -> None:
        """A point of each curve, as in the new line of metrics.jsonl."""
        self._add(self._add_curves)

    def evaluated(self, evaluation: EvalResult) -> Action:
        """A point per metric, and one for the duration."""
        self._add(self._add_curves)
        if evaluation.split == "val":
            duration = {"time/eval_s": evaluation.seconds}
            self._add(lambda file: file.add_scalars(duration, evaluation.step))
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Pictures, and the table as text."""
        for picture in predictions.pictures:
            self._add_picture(picture, step)
        table = predictions_table(predictions)
        self._add(lambda file: file.add_text("samples/table", table, step))

    def end(self, outcome: Outcome) -> None:
        """Wait for the rest to be written; longer for a completed run than for a stopped one."""
        if self._queue is None:
            return
        completed = outcome.status == "completed"
        if outcome.exit_code not in (75, 130):
            self._add(lambda file: file.add_end(completed))
        wait_s = self._wait_s if completed else min(self._wait_s, _STOPPED_WAIT_S)
        is_done = self._queue.finish(self._close, wait_s)
        self._has_ended = True
        if not is_done:
            self._warn(f"writing took longer than {wait_s:g} s")
        self._check()

    def _add_picture(self, picture: Picture, step: int) -> None:
        self._add(lambda file: file.add_png(f"samples/{picture.name}", picture.png, step))

    def _add(self, write: Callable[[EventFile], object]) -> None:
        """Queue a write, and report failures of earlier ones."""
        if self._queue is not None:
            self._queue.add(lambda: self._write(write))
            self._check()

    def _check(self) -> None:
        assert self._queue is not None
        if self._queue.error is not None:
            self._warn(self._queue.error)
        elif self._queue.dropped:
            self._warn("writing is too slow, and parts are left out")

    def _warn(self, error: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        text = f"TensorBoard does not show all of this run: {error}"
        if self._has_ended:
            self._run.report("warning", text)
        else:
            self._run.emit("warning", {"text": text})

    # The thread calls the methods below.

    def _open(self, purge_step: int, metrics_size: int) -> None:
        self._file = EventFile(self._run.folder / FOLDER, purge_step)
        self._lines = MetricsReader(self._metrics)
        self._lines.lines(metrics_size)

    def _add_curves(self, file: EventFile) -> None:
        """The points of all new lines of the metrics file."""
        assert self._lines is not None
        for line in self._lines.lines(_size(self._metrics)):
            points = chart_values(line)
            file.add_scalars(points, int(points.pop(STEP)))

    def _write(self, write: Callable[[EventFile], object]) -> None:
        assert self._file is not None, "it was opened first"
        write(self._file)

    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class EventFile:
    """A new event file in a folder, by torch's SummaryWriter. Touches disk; raises OSError."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Events of earlier files from `purge_step` on are void."""
        from torch.utils.tensorboard import SummaryWriter  # takes most of a second

        folder.mkdir(exist_ok=True)
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)
        self.flush, self.close = self._writer.flush, self._writer.close

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point per curve."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def add_png(self, tag: str, png: bytes, step: int) -> None:
        """A picture; SummaryWriter.add_image would decode and encode it again."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = struct.unpack(">II", png[16:24])  # of the PNG header
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        self._add(Summary.Value(tag=tag, image=image), step)

    def add_text(self, tag: str, markdown: str, step: int) -> None:
        """Markdown; SummaryWriter.add_text would append "/text_summary" to the tag."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()])
        self._add(Summary.Value(tag=tag, metadata=_metadata("text", b""), tensor=tensor), step)

    def add_settings(self, values: Mapping[str, Any]) -> None:
        """The settings of the run; SummaryWriter.add_hparams would write them as another run."""
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for key, value in values.items():
            if isinstance(value, bool):
                start.hparams[key].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[key].number_value = value
            elif value is not None:
                text = value if isinstance(value, str) else json.dumps(value, default=str)
                start.hparams[key].string_value = text
        self._add_hparams(metadata.SESSION_START_INFO_TAG, session_start_info=start)

    def add_end(self, completed: bool) -> None:
        """The status of a run that has ended for good."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if completed else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._add_hparams(metadata.SESSION_END_INFO_TAG, session_end_info=end)

    def _add_hparams(self, tag: str, **content: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        version = metadata.PLUGIN_DATA_VERSION
        data = plugin_data_pb2.HParamsPluginData(version=version, **content).SerializeToString()
        named = _metadata(metadata.PLUGIN_NAME, data)
        self._add(Summary.Value(tag=tag, metadata=named, tensor=metadata.NULL_TENSOR), 0)

    def _add(self, value: Summary.Value, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        writer: Any = self._writer.file_writer
        writer.add_summary(Summary(value=[value]), step)


class WriteQueue:
    """Runs writes in a thread, in order, until one fails; no method raises."""

    def __init__(self, name: str, idle: Callable[[], object]) -> None:
        """`idle` runs whenever the queue is empty: a flush."""
        self._idle = idle
        self._waiting: Queue[tuple[Callable[[], object], bool]] = Queue(QUEUE_SIZE)
        """Writes, and whether each is the last one."""
        self.error: str | None = None
        """Why nothing is written any more."""
        self.dropped = 0
        """Writes that found no room."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, write: Callable[[], object]) -> None:
        """Queue `write` after all others."""
        if self.error is None:
            try:
                self._waiting.put_nowait((write, False))
            except Full:
                self.dropped += 1

    def finish(self, last: Callable[[], object], wait_s: float) -> bool:
        """Run `last` and end the thread; whether all was written within `wait_s`."""
        until = time.monotonic() + wait_s
        if self.error is None:
            with suppress(Full):
                self._waiting.put((last, True), timeout=wait_s)
        self._thread.join(max(until - time.monotonic(), 0.0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.error = failure_of(self._run_all)

    def _run_all(self) -> None:
        is_last = False
        while not is_last:
            write, is_last = self._waiting.get()
            write()
            if self._waiting.empty():
                self._idle()


def _metadata(plugin: str, content: bytes) -> SummaryMetadata:
    from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return SummaryMetadata(plugin_data=data)


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it does not exist, which the metrics writer reports itself."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
