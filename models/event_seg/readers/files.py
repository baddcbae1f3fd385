"""Recordings of all formats, opened by one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

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

    `sensor`: height and width of a file that lacks them. `trained`: those in training, of a
    recording that is predicted: labels are not read, and `window_ms` cuts it from its first event
    on. Reads and writes the disk. Raises DataError.
    """
    is_mvsec = form == MVSEC
    masks = path.with_name(f"{path.stem}_masks.h5")
    # The first that names the sensor does.
    sizes: dict[str, Sides | None] = {}
    # The end of each window, by its label; nothing has decoded the events yet.
    ends = np.empty(0)
    pieces: Callable[[], Iterator[Events]]
    if is_mvsec:
        pieces = partial(hdf5.mvsec_pieces, path)
        ends, sizes["frames"] = hdf5.read_frames(path, has_times=trained is None)
    else:
        if sensor is not None:
            sizes["data.sensor"] = (sensor[0], sensor[1])
        if form == DSEC:
            pieces = partial(hdf5.dsec_pieces, path)
        else:
            header = read_header(path)
            sizes["header"] = header.sensor
            pieces = partial(raw_pieces, path, header)
        if trained is None:
            if not masks.exists():
                raise DataError(
                    f"'{path.name}' has no labels",
                    where=str(path),
                    allowed=f"masks in {masks.name}: {hdf5.MASKS}",
                )
            ends, sizes["masks"] = hdf5.read_mask_times(masks)

    # The reader of events is pickled with the recording: a partial, no closure.
    read = partial(
        cached,
        path,
        pieces,
        np.float64 if is_mvsec else np.int64,
    )
    events = read()
    height, width = events["extent"].tolist()
    sizes["events"] = (height, width)
    if trained is not None and (is_mvsec or np.less_equal((height, width), trained).all()):
        sizes["events"] = trained
    source, size = next((name, sides) for name, sides in sizes.items() if sides)
    size_of_masks = sizes.get("masks", size)
    if height > size[0] or width > size[1] or size_of_masks != size:
        raise DataError(
            f"events extend to {height}×{width}, masks are {size_of_masks}, "
            f"the sensor is {shape(size)} ({source})",
            where=str(path),
            allowed="events within the sensor, and masks of its size",
            fix="" if is_mvsec else f"--set 'data.sensor=[{height},{width}]'",
        )

    first_mask = 0
    if trained is not None:
        windows = _equal_windows(path, events["t"], window_ms)
    else:
        windows, first_mask = _windows_of_labels(path, events["t"], ends, window_ms)
    label = partial(hdf5.read_mask, masks, first_mask)
    if is_mvsec:
        label = partial(hdf5.frame_edges, path)
    return EventRecording(
        name,
        form,
        size,
        source,
        windows,
        second=1.0 if is_mvsec else 1e6,
        unit="s, by the format" if is_mvsec else "µs, by the format",
        labels=RECIPE if is_mvsec else f"masks of {masks.name}",
        read=read,
        label=label,
    )


def _equal_windows(
    path: Path,
    t: ndarray,
    window_ms: float | None,
) -> ndarray:
    """Windows of one length, from the first event on. Raises DataError for too many."""
    assert window_ms is not None, "without labels there is a length"
    step = window_ms / 1e3
    length = float(t[-1] - t[0])
    if t.dtype.kind != "f":
        step = max(1, int(1e3 * window_ms))
        length += 1  # the last microsecond is in the window, too
    count = length / step
    if not count <= MAX_WINDOWS:
        raise DataError(
            f"the times of '{path.name}' span {count:,.3g} windows",
            where=str(path),
            allowed=f"at most {MAX_WINDOWS:,} windows",
        )
    return spans(t[0] + np.arange(int(count) + 1) * step)


def _windows_of_labels(
    path: Path,
    t: ndarray,
    ends: ndarray,
    window_ms: float | None,
) -> tuple[ndarray, int]:
    """A window for each label, and the number of the mask at the end of the first one."""
    if ends[0] > t[-1] or ends[-1] <= t[0]:
        raise DataError(
            f"labels span {ends[[0, -1]]}, events span {t[[0, -1]]}",
            where=str(path),
            allowed="times of frames or masks in the clock of the recording",
        )
    if window_ms is None or t.dtype.kind == "f":
        return spans(ends), 1
    return np.stack((ends - max(1, int(1e3 * window_ms)), ends), axis=1), 0
