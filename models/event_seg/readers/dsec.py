"""Events of DSEC: HDF5 files with an array for each of x, y, t and p."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.base import DataError
from models.event_seg.readers.hdf5 import Hdf5
from models.event_seg.readers.prophesee_format import ENCODING_BY_NAME, MAX_SIDE

NAMES = ("t", "x", "y", "p")
ALLOWED = (
    "whole numbers events/t [event] in microseconds, events/x, events/y and events/p [event] of 0 "
    "and 1, and t_offset in microseconds"
)


def read_words(path: Path, start: int, count: int) -> np.ndarray:
    """Events `start` to `start` + `count` as words; times with the offset. Raises DataError.

    Source: Gehrig et al., DSEC: A Stereo Event Camera Dataset for Driving Scenarios, 2021.
    """
    file = Hdf5(path)
    arrays = {name: file.dataset(f"events/{name}", ALLOWED, 1) for name in NAMES}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(array):,} {name}" for name, array in arrays.items())
        raise _invalid(path, f"has arrays of several lengths: {lengths}")
    words = np.empty(max(0, min(count, len(arrays["t"]) - start)), ENCODING_BY_NAME["DSEC"].word)
    for name, array in arrays.items():
        if array.dtype.kind not in "iub":
            raise _invalid(path, f"has events/{name} of type {array.dtype}")
        values = file.read(array, np.s_[start : start + len(words)])
        _check(path, name, values)
        words[name] = values
    if len(words) and file.has("t_offset"):
        words["t"] += _offset(file, path)
    return words


def _check(path: Path, name: str, values: np.ndarray) -> None:
    if not len(values):
        return
    limits = {"t": (0, 2**62), "p": (-1, 1)}.get(name, (0, MAX_SIDE - 1))
    low, high = int(values.min()), int(values.max())
    if low < limits[0] or high > limits[1]:
        raise _invalid(path, f"has events/{name} from {low} to {high}")


def _offset(file: Hdf5, path: Path) -> int:
    array = file.dataset("t_offset", ALLOWED, 0)
    if array.dtype.kind not in "iu":
        raise _invalid(path, f"has a t_offset of type {array.dtype}")
    offset = int(file.read(array, ()))
    if not 0 <= offset < 2**62:
        raise _invalid(path, f"has a t_offset of {offset}")
    return offset


def _invalid(path: Path, problem: str) -> DataError:
    return DataError(f"'{path.name}' {problem}", where=str(path), allowed=ALLOWED)
