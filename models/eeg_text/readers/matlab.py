"""ZuCo files of MATLAB 7.3, which are HDF5: read sentence by sentence."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.eeg_text.config import CHANNELS

_GROUP = "sentenceData"
_HDF5_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, IndexError)
"""What h5py raises of a file that is cut short or garbled."""


def look(path: Path) -> Iterator[tuple[str, int, str | None]]:
    """Text, number of samples and fault of each sentence; one is in memory at a time.

    Touches disk. Raises DataError.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _check(file, path)
            group = file[_GROUP]
            for number in range(_count(group["rawData"])):
                text = _text(_entry(file, group["content"], number))
                eeg, fault = oriented(_array(_entry(file, group["rawData"], number)), True)
                yield text, len(eeg), fault or fault_of_text(text)
    except _HDF5_ERRORS as error:
        raise _unreadable(path, error) from None


def eeg(path: Path, number: int) -> np.ndarray:
    """Microvolts [time, 105] of a sentence, float32. Touches disk; raises DataError."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found, fault = oriented(_array(_entry(file, file[_GROUP]["rawData"], number)), True)
    except _HDF5_ERRORS as error:
        raise _unreadable(path, error) from None
    if fault is not None:
        raise DataError(fault, where=f"{path}, sentence {number + 1}", allowed="what setup found")
    return found


def _check(file: Any, path: Path) -> None:
    missing = [name for name in ("content", "rawData") if name not in file.get(_GROUP, ())]
    if missing:
        what = _GROUP if _GROUP not in file else f"{_GROUP}/{missing[0]}"
        raise DataError(
            f"'{path.name}' holds no {what}", where=str(path), allowed="a result file of ZuCo"
        )


def _is_cell(field: Any) -> bool:
    """Whether a field holds references, one a sentence; a single sentence has none."""
    return bool(field.dtype == object)


def _count(field: Any) -> int:
    return int(field.size) if _is_cell(field) else 1


def _entry(file: Any, field: Any, number: int) -> Any:
    if not _is_cell(field):
        return field
    # A column or a row: MATLAB 7.3 stores either.
    place = (number, 0) if field.shape[0] > 1 else (0, number)
    return file[field[place if field.ndim == 2 else number]]


def _array(entry: Any) -> np.ndarray:
    """Numbers; none where MATLAB wrote the shape of an empty array in their place."""
    if entry.attrs.get("MATLAB_empty", 0) or not hasattr(entry, "dtype"):
        return np.zeros((0,))
    return np.asarray(entry[()]) if entry.dtype.kind in "fiu" else np.zeros((0,))


def _text(entry: Any) -> str:
    """Text from UTF-16 code units, one a number."""
    if entry.attrs.get("MATLAB_empty", 0):
        return ""
    units = np.asarray(entry[()]).ravel().astype("<u2")
    return units.tobytes().decode("utf-16-le", errors="replace").strip()


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    return DataError(
        f"'{path.name}' cannot be read: {error}", where=str(path), allowed="a whole MATLAB file"
    )


_MATLAB5_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What scipy raises of a file that is cut short or garbled."""


def sentences(path: Path) -> Iterator[tuple[str, int, np.ndarray, str | None]]:
    """Text, number of samples, EEG [time, 105] and fault of each sentence.

    Reads the whole file into memory. Raises DataError.
    """
    for entry in _entries(path):
        text = str(getattr(entry, "content", "")).strip()
        raw = np.asarray(getattr(entry, "rawData", np.nan))
        if raw.dtype.kind not in "fiu":
            raw = np.zeros((0,))
        eeg, fault = oriented(raw, time_first=False)
        yield text, len(eeg), eeg, fault or fault_of_text(text)


def _entries(path: Path) -> list[Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(
            path, struct_as_record=False, squeeze_me=True, variable_names=["sentenceData"]
        )
    except (MatReadError, *_MATLAB5_ERRORS) as error:
        raise DataError(
            f"'{path.name}' cannot be read: {error}",
            where=str(path),
            allowed="a whole MATLAB file",
        ) from None
    if "sentenceData" not in found:
        raise DataError(
            f"'{path.name}' holds no sentenceData", where=str(path), allowed="a result file of ZuCo"
        )
    return list(np.atleast_1d(found["sentenceData"]))


def oriented(raw: np.ndarray, time_first: bool) -> tuple[np.ndarray, str | None]:
    """EEG [time, 105] float32, and what is wrong with it: None if nothing is.

    A scalar NaN and an empty array are missing EEG, of length 0, and nothing wrong. The axis of
    105 is that of channels, never the shorter one; where both have 105, `time_first` decides.
    """
    nothing = np.zeros((0, CHANNELS), dtype=np.float32)
    if raw.size == 0 or (raw.size == 1 and np.isnan(raw).all()):
        return nothing, None
    if raw.ndim != 2 or CHANNELS not in raw.shape:
        shape = " x ".join(map(str, raw.shape))
        return nothing, f"rawData is {shape or 'one number'}, none of them {CHANNELS} channels"
    is_time_first = raw.shape[1] == CHANNELS and (time_first or raw.shape[0] != CHANNELS)
    eeg = np.asarray(raw if is_time_first else raw.T, dtype=np.float32)
    if not np.isfinite(eeg).all():
        return nothing, "rawData holds values that are no numbers"
    return eeg, None


def fault_of_text(text: str) -> str | None:
    """What is wrong with a sentence."""
    return None if any(c.isalnum() for c in text) else "content holds no words"
