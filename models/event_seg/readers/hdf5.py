"""HDF5 files: recordings of MVSEC and DSEC, and masks of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError
from gearshift.models.common import hdf5
from gearshift.models.common.data_files import check_kind, check_reader
from gearshift.models.common.data_reports import library_errors
from gearshift.models.event_seg.readers.recording import (
    IGNORED,
    MAX_SIDE,
    PIECE,
    Events,
    Sides,
    check_ascending,
    downsample_mask,
    edges,
)

if TYPE_CHECKING:
    import h5py

GROUP = "davis/left"
FRAMES = f"{GROUP}/image_raw"
MAX_TIME = 2**61
_LIMITS = {
    "t": (0, MAX_TIME),
    "x": (0, MAX_SIDE - 1),
    "y": (0, MAX_SIDE - 1),
    "p": (-1, 1),
}
"""Of the arrays of DSEC, the least and the largest value."""
MVSEC = (
    f"{GROUP} with events float64 [event, 4] of x, y, t, polarity, image_raw [frame, height, "
    "width] uint8, and image_raw_ts [frame]"
)
DSEC = (
    "whole numbers events/t [event] in microseconds, events/x, events/y and events/p [event] of 0 "
    "and 1, and t_offset in microseconds"
)
MASKS = (
    "`masks` [mask, height, width] uint8 of 0 background, 1 foreground, 255 ignored, and `t` "
    "[mask], microseconds of the recording, ascending"
)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The open file. Any problem in the block is a DataError."""
    check_kind(path)  # masks beside a recording may be a pipe
    check_reader("h5py", path)
    import h5py

    with (
        library_errors(
            f"'{path.name}' cannot be read as HDF5",
            str(path),
            allowed="a complete HDF5 file, with known filters",
            hint="copy it again, or leave it out; if it is compressed, as DSEC is:  "
            "pip install hdf5plugin",
        ),
        h5py.File(path, "r") as file,
    ):
        yield file


def _check(
    is_valid: Any,
    file: h5py.File,
    problem: str,
    allowed: str,
) -> None:
    if not is_valid:
        path = file.filename
        raise DataError(
            f"'{Path(path).name}' {problem}",
            where=path,
            allowed=allowed,
        )


def _array(
    file: h5py.File,
    name: str,
    allowed: str,
    axes: int,
    kinds: str,
) -> h5py.Dataset:
    """Array `name` of a dtype of `kinds`. Raises DataError if it is missing or incomplete."""
    import h5py

    with suppress(ImportError):
        import_module("hdf5plugin")  # adds filters; no dependency, since only DSEC needs it
    array = hdf5.member(file, name)
    is_array = isinstance(array, h5py.Dataset)
    is_array = is_array and array.ndim == axes and array.dtype.kind in kinds
    _check(
        is_array,
        file,
        f"has no '{name}' of {axes} axes and such numbers: {array}",
        allowed,
    )
    claim = hdf5.problem(array)
    _check(
        claim is None,
        file,
        f"has an array '{name}' that {claim}",
        "a complete HDF5 file",
    )
    return array


def _times(
    path: Path,
    name: str,
    times: str,
    kinds: str,
    allowed: str,
) -> tuple[ndarray, Sides]:
    """The `times` of the pictures `name` in uint8, and height and width. Raises DataError."""
    with opened(path) as file:
        pictures = _array(file, name, allowed, 3, "u")
        stamps = _array(file, times, allowed, 1, kinds)
        _check(
            len(pictures) == len(stamps) >= 2 and pictures.dtype == np.uint8,
            file,
            f"has {len(pictures)} {name} of {pictures.dtype}, and {len(stamps)} times",
            f"at least 2 of uint8 with one time each: {allowed}",
        )
        t = stamps[:].astype(np.float64 if "f" in kinds else np.int64)
        check_ascending(t, f"{path}: {times}", f"times of {name}")
        return t, pictures.shape[1:]


def read_frames(
    path: Path,
    has_times: bool,
) -> tuple[ndarray, Sides | None]:
    """The times of the frames of an MVSEC file, and height and width, None without frames.

    Unless `has_times`, times are not read. Raises DataError.
    """
    if has_times:
        return _times(path, FRAMES, f"{FRAMES}_ts", "iuf", MVSEC)
    with opened(path) as file:
        sides = None
        if hdf5.member(file, FRAMES) is not None:
            sides = _array(file, FRAMES, MVSEC, 3, "u").shape[1:]
        return np.empty(0), sides


def frame_edges(
    path: Path,
    index: int,
    factor: int,
) -> ndarray:
    """Edges of the frame at the end of window `index`. Raises DataError."""
    with opened(path) as file:
        frame = _array(file, FRAMES, MVSEC, 3, "u")[index + 1]
    return edges(frame, factor)


def mvsec_pieces(path: Path) -> Iterator[Events]:
    """The events of an MVSEC file; times are float64 seconds, usually since 1970.

    Source: Zhu et al., The Multi Vehicle Stereo Event Camera Dataset, 2018. Raises DataError.
    """
    with opened(path) as file:
        events = _array(file, f"{GROUP}/events", MVSEC, 2, "f")
        is_valid = events.shape[1] == 4 and events.dtype == np.float64
        _check(
            is_valid,
            file,
            f"has events {events.dtype} {events.shape}",
            MVSEC,
        )
        polarities: set[float] = set()
        for at in range(0, len(events), PIECE):
            x, y, t, p = events[at : at + PIECE].T
            polarities |= set(p.tolist())
            is_valid = polarities <= {1, -1} or polarities <= {1, 0}
            # Not a number is in no range.
            for values, most in ((x, MAX_SIDE), (y, MAX_SIDE), (abs(t), np.inf)):
                is_valid &= 0 <= values.min() <= values.max() < most
            if not is_valid:
                raise DataError(
                    f"events have values of {x.min()}, {y.min()}, {t.min()} to {x.max()}, "
                    f"{y.max()}, {t.max()}, and polarities {sorted(polarities)}",
                    where=f"{path}, after event {at}",
                    allowed=f"x and y from 0 to {MAX_SIDE - 1}, finite times, polarity 1 and "
                    "either -1 or 0",
                )
            yield Events(
                t,
                np.floor(x).astype(np.int32),
                np.floor(y).astype(np.int32),
                np.where(p == 1, 1, -1),
            )


def dsec_pieces(path: Path) -> Iterator[Events]:
    """The events of a DSEC file; times with the offset, in microseconds. Raises DataError.

    Source: Gehrig et al., DSEC: A Stereo Event Camera Dataset for Driving Scenarios, 2021.
    """
    with opened(path) as file:
        arrays = {name: _array(file, f"events/{name}", DSEC, 1, "iub") for name in "txyp"}
        lengths = {len(array) for array in arrays.values()}
        problem = f"has arrays of several lengths: {sorted(lengths)}"
        _check(len(lengths) == 1, file, problem, DSEC)
        offset = 0
        if hdf5.member(file, "t_offset") is not None:
            offset = int(_array(file, "t_offset", DSEC, 0, "iu")[()])
        _check(
            0 <= offset < MAX_TIME,
            file,
            f"has a t_offset of {offset}",
            DSEC,
        )

        for at in range(0, lengths.pop(), PIECE):
            part = {}
            for name, array in arrays.items():
                values = array[at : at + PIECE].astype(np.int64)
                low, high = _LIMITS[name]
                least, most = values.min(), values.max()
                problem = f"has events/{name} from {least} to {most} after event {at}"
                _check(
                    low <= least and most <= high,
                    file,
                    problem,
                    DSEC,
                )
                part[name] = values
            part["t"] += offset
            part["p"] = np.where(part["p"] > 0, 1, -1)
            yield Events(**part)


def read_mask_times(path: Path) -> tuple[ndarray, Sides]:
    """The times of the masks in a file, and their height and width. Raises DataError."""
    return _times(path, "masks", "t", "iu", MASKS)


def read_mask(
    path: Path,
    first: int,
    index: int,
    factor: int,
) -> ndarray:
    """The mask at the end of window `index`, downsampled; window 0 ends at mask `first`.

    Raises DataError.
    """
    number = first + index
    with opened(path) as file:
        mask = _array(file, "masks", MASKS, 3, "u")[number]
        values = set(np.unique(mask).tolist())
        _check(
            values <= {0, 1, IGNORED},
            file,
            f"has {sorted(values)} in mask {number}",
            f"0, 1, {IGNORED}",
        )
    return downsample_mask(mask, factor)
