"""Files that TensorBoard reads: events with scalars, pictures, texts and settings."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# These load protobuf, and are fast; tensorboard's own writers would load tensorflow where it is.
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter

_PREFIX = "events.out.tfevents."
_VERSION = "brain.Event:2"


class EventFile:
    """A new file of events in a folder. Each method touches disk; raises OSError.

    Readers take the files of a folder in the order of their names, and forget of earlier ones what
    happened from the step on that a later one goes on with.
    """

    def __init__(self, folder: Path, goes_on_at: int) -> None:
        """`goes_on_at` is the first step whose events are not in earlier files, or are void."""
        folder.mkdir(exist_ok=True)
        host = socket.gethostname()
        path = folder / f"{_PREFIX}{_newest(folder):010d}.{host}.{os.getpid()}.gearshift"
        self._file = path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version=_VERSION))
        self._write(Event(session_log=SessionLog(status=SessionLog.START), step=goes_on_at))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point each."""
        points = (Summary.Value(tag=tag, simple_value=value) for tag, value in values.items())
        self._write(Event(summary=Summary(value=points), step=step))

    def picture(self, tag: str, png: bytes, step: int) -> None:
        """A PNG."""
        width, height = struct.unpack(">II", png[16:24])  # of its header
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        value = Summary.Value(tag=tag, image=image)
        self._write(Event(summary=Summary(value=[value]), step=step))

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Text as Markdown."""
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()])
        value = Summary.Value(tag=tag, metadata=_plugin("text", b""), tensor=tensor)
        self._write(Event(summary=Summary(value=[value]), step=step))

    def settings(self, values: Mapping[str, Any]) -> None:
        """What the run was started with, for the table that compares runs."""
        started = SessionStartInfo(start_time_secs=time.time())
        for key, value in values.items():
            if isinstance(value, bool):
                started.hparams[key].bool_value = value
            elif isinstance(value, int | float):
                started.hparams[key].number_value = value
            elif value is not None:
                text = value if isinstance(value, str) else json.dumps(value, default=str)
                started.hparams[key].string_value = text
        self._hparams(hparams.SESSION_START_INFO_TAG, session_start_info=started)

    def ended(self, well: bool) -> None:
        """The run has ended for good."""
        status = STATUS_SUCCESS if well else STATUS_FAILURE
        info = SessionEndInfo(status=status, end_time_secs=time.time())
        self._hparams(hparams.SESSION_END_INFO_TAG, session_end_info=info)

    def flush(self) -> None:
        """Hand all to the system."""
        self._records.flush()

    def close(self) -> None:
        """Write what is left, and give back the file."""
        self._records.close()

    def _hparams(self, tag: str, **content: Any) -> None:
        data = HParamsPluginData(version=hparams.PLUGIN_DATA_VERSION, **content)
        named = _plugin(hparams.PLUGIN_NAME, data.SerializeToString())
        value = Summary.Value(tag=tag, metadata=named, tensor=hparams.NULL_TENSOR)
        self._write(Event(summary=Summary(value=[value])))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def _plugin(name: str, content: bytes) -> SummaryMetadata:
    return SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=name, content=content)
    )


def _newest(folder: Path) -> int:
    """Now, in seconds; later than any file of `folder` says, though its clock was ahead."""
    told = (path.name.removeprefix(_PREFIX).split(".")[0] for path in folder.glob(f"{_PREFIX}*"))
    return max([int(time.time()), *(int(text) + 1 for text in told if text.isdigit())])
