"""Recordings of all formats, opened by one function."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gearshift.models.base import DataError
from gearshift.models.event_seg.formats import DSEC, MVSEC
from gearshift.models.event_seg.readers import hdf5
from gearshift.models.event_seg.readers.prophesee_format import raw_pieces, read_header
from gearshift.models.event_seg.readers.recording import (
    MAX_WINDOWS,
    RECIPE,
    EventRecording,
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
    masks = hdf5.mask_path(path)
    header = None if form in (MVSEC, DSEC) else read_header(path)
    pieces: Any = partial(hdf5.mvsec_pieces if is_mvsec else hdf5.dsec_pieces, path)
    pieces = pieces if header is None else partial(raw_pieces, path, header)
    # What names the sensor, the first that does; then the events themselves.
    sizes = {"data.sensor": None if sensor is None or is_mvsec else (sensor[0], sensor[1])}
    sizes["header"] = header.sensor if header else None
    ends = np.empty(0)
    if is_mvsec:
        ends, sizes["frames"] = hdf5.read_frames(path, has_times=trained is None)
    elif trained is None:
        if not masks.exists():
            allowed = f"masks in {masks.name}: {hdf5.MASKS}"
            raise DataError(f"'{path.name}' has no labels", where=str(path), allowed=allowed)
        ends, sizes["masks"] = hdf5.read_mask_times(masks)
    read = partial(cached, path, pieces, np.float64 if is_mvsec else np.int64)
    events = read()
    extent = int(events["extent"][0]), int(events["extent"][1])
    is_within = trained is not None and extent[0] <= trained[0] and extent[1] <= trained[1]
    sizes["events"] = trained if is_within or is_mvsec else extent
    source, size = next((source, size) for source, size in sizes.items() if size is not None)
    of_masks = sizes.get("masks") or size
    if extent[0] > size[0] or extent[1] > size[1] or of_masks != size:
        seen = f"events extend to {shape(extent)}, masks are {shape(of_masks)}"
        raise DataError(
            f"{seen}, the sensor is {shape(size)} ({source})",
            where=str(path),
            allowed="events within the sensor, and masks of its size",
            fix="" if is_mvsec else f"--set 'data.sensor=[{extent[0]},{extent[1]}]'",
        )
    windows, first_mask = _windows(
        path, events["t"], ends, window_ms, is_predicted=trained is not None
    )
    label: Any = partial(hdf5.frame_edges, path)
    return EventRecording(
        name, form, size, source, windows,
        second=1.0 if is_mvsec else 1e6,
        unit="s, by the format" if is_mvsec else "µs, by the format",
        labels=RECIPE if is_mvsec else f"masks of {masks.name}",
        read=read,
        label=label if is_mvsec else partial(hdf5.read_mask, masks, first_mask),
    )  # fmt: skip


def _windows(
    path: Path, t: np.ndarray, ends: np.ndarray, window_ms: float | None, is_predicted: bool
) -> tuple[np.ndarray, int]:
    """Windows, and the number of the mask at the end of the first one; `ends`: times of labels."""
    is_float = t.dtype.kind == "f"
    if is_predicted:
        assert window_ms is not None, "without labels there is a length"
        step = window_ms / 1e3 if is_float else max(1, int(1e3 * window_ms))
        count = float(t[-1] - t[0] + (0 if is_float else 1)) / step
        if not count <= MAX_WINDOWS:
            raise DataError(
                f"the times of '{path.name}' span {count:,.3g} windows",
                where=str(path),
                allowed=f"at most {MAX_WINDOWS:,} windows of {window_ms:.4g} ms",
            )
        return spans(t[0] + np.arange(int(count) + 1) * step), 0
    if ends[0] > t[-1] or ends[-1] <= t[0]:
        raise DataError(
            f"labels span {ends[0]} to {ends[-1]}, events span {t[0]} to {t[-1]}",
            where=str(path),
            allowed="times of frames or masks in the clock of the recording",
        )
    if window_ms is None or is_float:
        return spans(ends), 1
    return np.stack((ends - max(1, int(1e3 * window_ms)), ends), axis=1), 0
