"""Recordings of all formats, opened by one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError
from gearshift.models.event_seg.formats import DSEC, MVSEC
from gearshift.models.event_seg.readers import hdf5
from gearshift.models.event_seg.readers.prophesee_format import raw_pieces, read_header
from gearshift.models.event_seg.readers.recording import (
    MAX_WINDOWS,
    RECIPE,
    EventRecording,
    Events,
    Sides,
    cached,
    shape,
    spans,
)


def open_recording(
    path: Path,
    name: str,
    form: str,
    window_ms: float | None = None,
    sensor: Sequence[int] | None = None,
    trained: Sides | None = None,
) -> EventRecording:
    """A recording of the format `form`; the first call decodes its events into the cache.

    `window_ms`: the length of windows; None: from one label to the next. `sensor`: height and width
    of a file that lacks them. `trained`: those in training, of a recording that is predicted:
    labels are not read, and windows begin at its first event. Reads and writes the disk. Raises
    DataError.
    """
    # The first that names the sensor does.
    sizes: dict[str, Sides | None] = {}
    if sensor is not None:
        sizes["data.sensor"] = (sensor[0], sensor[1])
    pictures = hdf5.MASKS
    source = path.with_name(f"{path.stem}_masks.h5")
    labels = f"masks of {source.name}"
    second = 1e6
    pieces: Callable[[], Iterator[Events]]
    if form == MVSEC:
        pictures = hdf5.FRAMES
        source = path
        labels = RECIPE
        second = 1.0
        pieces = partial(hdf5.mvsec_pieces, path)
    elif form == DSEC:
        pieces = partial(hdf5.dsec_pieces, path)
    else:
        header = read_header(path)
        sizes["header"] = header.sensor
        pieces = partial(raw_pieces, path, header)

    # The end of each window, by its label; nothing has decoded the events yet.
    ends = np.empty(0)
    if trained is None:
        if not source.exists():
            raise DataError(
                f"'{path.name}' has no labels",
                where=str(path),
                allowed=f"masks in {source.name}: {pictures.allowed}",
            )
        ends, sizes[pictures.noun] = hdf5.read_times(source, pictures)

    # The reader of events is pickled with the recording: a partial, no closure.
    read = partial(cached, path, pieces, pictures.kind)
    events = read()
    height, width = events["extent"].tolist()
    sizes["events"] = (height, width)
    if trained is not None and np.less_equal((height, width), trained).all():
        sizes["events"] = trained
    sensor_source, size = next((name, sides) for name, sides in sizes.items() if sides)
    size_of_labels = sizes.get(pictures.noun, size)
    if height > size[0] or width > size[1] or size_of_labels != size:
        raise DataError(
            f"events extend to {height}×{width}, {pictures.noun} are {size_of_labels}, "
            f"the sensor is {shape(size)} ({sensor_source})",
            where=str(path),
            allowed=f"events within the sensor, and {pictures.noun} of its size",
            fix=f"--set 'data.sensor=[{height},{width}]'",
        )

    # Whole microseconds, where times are.
    step = None if window_ms is None else pictures.kind(window_ms * (second / 1e3))
    first = 0
    if trained is not None:
        windows = _equal_windows(path, events["t"], step)
    else:
        windows, first = _windows_of_labels(path, events["t"], ends, step)
    return EventRecording(
        name,
        form,
        size,
        sensor_source,
        windows,
        second=second,
        labels=labels,
        read=read,
        label=partial(hdf5.read_label, source, pictures, first),
    )


def _equal_windows(path: Path, t: ndarray, step: Any) -> ndarray:
    """Windows of one length, from the first event on. Raises DataError for none or too many."""
    # The last microsecond is in a window, too.
    length = t[-1] - t[0] + (t.dtype.kind != "f")
    count = length / step
    if not 1 <= count <= MAX_WINDOWS:
        raise DataError(
            f"'{path.name}' spans {count:,.3g} windows of the length in training",
            where=str(path),
            allowed=f"1 to {MAX_WINDOWS:,} windows",
        )
    return spans(t[0] + np.arange(int(count) + 1) * step)


def _windows_of_labels(path: Path, t: ndarray, ends: ndarray, step: Any) -> tuple[ndarray, int]:
    """A window for each label, and the number of the label at the end of the first one."""
    if ends[0] > t[-1] or ends[-1] <= t[0]:
        raise DataError(
            f"labels span {ends[[0, -1]]}, events span {t[[0, -1]]}",
            where=str(path),
            allowed="times of frames or masks in the clock of the recording",
        )
    if step is None:
        return spans(ends), 1
    return np.stack((ends - step, ends), axis=1), 0
