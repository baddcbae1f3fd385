"""HDF5 files: recordings of MVSEC and DSEC, and masks of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy import ndarray

from gearshift.models.common import hdf5
from gearshift.models.common.data_files import check_kind, check_reader
from gearshift.models.common.data_reports import library_errors
from gearshift.models.event_seg.readers.recording import (
    IGNORED,
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
MVSEC = (
    f"{GROUP} with events float64 [event, 4] of x, y, t, polarity, image_raw [frame, height, "
    "width] uint8, and image_raw_ts [frame]"
)
DSEC = (
    "whole numbers events/t [event] in microseconds, events/x, events/y and events/p [event] of 0 "
    "and 1, and t_offset in microseconds"
)


class Pictures(NamedTuple):
    """Pictures uint8 [picture, height, width] of a file, and the time of each [picture]."""

    noun: str
    name: str
    times: str
    kind: type
    """Of the times."""
    allowed: str


FRAMES = Pictures("frames", f"{GROUP}/image_raw", f"{GROUP}/image_raw_ts", np.float64, MVSEC)
MASKS = Pictures(
    "masks",
    "masks",
    "t",
    np.int64,
    "`masks` [mask, height, width] uint8 of 0 background, 1 foreground, 255 ignored, and `t` "
    "[mask], whole microseconds of the recording, ascending",
)


@contextmanager
def opened(path: Path, allowed: str) -> Iterator[h5py.File]:
    """The open file. Any problem in the block is a DataError, which says what is `allowed`."""
    check_kind(path)  # masks beside a recording may be a pipe
    check_reader("h5py", path)
    import h5py

    with (
        library_errors(
            f"'{path.name}' cannot be read as HDF5",
            str(path),
            allowed=allowed,
            hint="copy it again, or leave it out; if it is compressed, as DSEC is:  "
            "pip install hdf5plugin",
        ),
        h5py.File(path, "r") as file,
    ):
        yield file


def _array(file: h5py.File, name: str, axes: int, kinds: str) -> h5py.Dataset:
    """Array `name` of a dtype of `kinds`. Raises ValueError if it is missing or incomplete."""
    import h5py

    with suppress(ImportError):
        import_module("hdf5plugin")  # adds filters; no dependency, since only DSEC needs it
    array = hdf5.member(file, name)
    if not isinstance(array, h5py.Dataset) or array.ndim != axes or array.dtype.kind not in kinds:
        raise ValueError(f"it has no '{name}' of {axes} axes and such numbers: {array}")
    claim = hdf5.problem(array)
    if claim is not None:
        raise ValueError(f"its array '{name}' {claim}")
    return array


def read_times(path: Path, pictures: Pictures) -> tuple[ndarray, Sides]:
    """The times of `pictures`, and their height and width. Raises DataError."""
    with opened(path, pictures.allowed) as file:
        array = _array(file, pictures.name, 3, "u")
        stamps = _array(file, pictures.times, 1, "iuf" if pictures.kind is np.float64 else "iu")
        if not len(array) == len(stamps) >= 2 or array.dtype != np.uint8:
            raise ValueError(f"it has {len(array)} of {array.dtype}, and {len(stamps)} times")
        t = stamps[:].astype(pictures.kind)
        check_ascending(t, f"{path}: {pictures.times}")
        return t, array.shape[1:]


def read_label(
    path: Path,
    pictures: Pictures,
    first: int,
    index: int,
    factor: int,
) -> ndarray:
    """The label at the end of window `index`; window 0 ends at picture `first`. Raises DataError.

    The edges of a frame; or a mask, downsampled.
    """
    with opened(path, pictures.allowed) as file:
        picture = _array(file, pictures.name, 3, "u")[first + index]
        if pictures == FRAMES:
            return edges(picture, factor)
        values = set(np.unique(picture).tolist())
        if not values <= {0, 1, IGNORED}:
            raise ValueError(f"it has {sorted(values)} in mask {first + index}")
        return downsample_mask(picture, factor)


def mvsec_pieces(path: Path) -> Iterator[Events]:
    """The events of an MVSEC file; times are float64 seconds, usually since 1970.

    Source: Zhu et al., The Multi Vehicle Stereo Event Camera Dataset, 2018. Raises DataError.
    """
    with opened(path, MVSEC) as file:
        events = _array(file, f"{GROUP}/events", 2, "f")
        if events.shape[1] != 4 or events.dtype != np.float64:
            raise ValueError(f"it has events {events.dtype} {events.shape}")
        for at in range(0, len(events), PIECE):
            x, y, t, p = events[at : at + PIECE].T
            yield Events(t, x, y, p)


def dsec_pieces(path: Path) -> Iterator[Events]:
    """The events of a DSEC file; times with the offset, in microseconds. Raises DataError.

    Source: Gehrig et al., DSEC: A Stereo Event Camera Dataset for Driving Scenarios, 2021.
    """
    with opened(path, DSEC) as file:
        arrays = [_array(file, f"events/{name}", 1, "iub") for name in "txyp"]
        lengths = set(map(len, arrays))
        if len(lengths) > 1:
            raise ValueError(f"it has arrays of several lengths: {sorted(lengths)}")
        offset = 0
        if hdf5.member(file, "t_offset") is not None:
            offset = int(_array(file, "t_offset", 0, "iu")[()])
        for at in range(0, lengths.pop(), PIECE):
            t, x, y, p = (array[at : at + PIECE].astype(np.int64) for array in arrays)
            yield Events(t + offset, x, y, p)
