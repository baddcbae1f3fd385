"""ZuCo files: MATLAB 7.3 (HDF5) by sentence, MATLAB 5 and 7 as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common.hdf5 import problem_of
from models.eeg_text.config import CHANNELS
from models.eeg_text.recordings import MOST_UV

NO_WORDS = "content has no words"
_GROUP = "sentenceData"


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Raises any exception of h5py and scipy as a DataError about `path`, and hides their warnings.

    For damaged files they raise exceptions of many types, also UnboundLocalError and those of zlib,
    which change between versions: so all are caught, and the error names type and text.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise DataError(
            f"'{path.name}' cannot be read: {text} ({type(error).__name__})",
            where=str(path),
            allowed="a complete MATLAB file",
            fix="copy it again from the data set, or leave it out",
        ) from None


def scan_hdf5(path: Path, has_text: bool = True) -> Iterator[tuple[str, int, str | None]]:
    """Text, number of samples and problem of each sentence; one is in memory at a time.

    Unless `has_text`, texts are empty and not read. Reads the disk. Raises DataError.
    """
    import h5py

    with _one_error(path), h5py.File(path, "r") as file:
        _check(file, path, ("content", "rawData") if has_text else ("rawData",))
        group = file[_GROUP]
        for number in range(_count(group["rawData"])):
            eeg, problem = orient(_array(_entry(file, group["rawData"], number)), True)
            if not has_text:
                yield "", len(eeg), problem
                continue
            text = _text(_entry(file, group["content"], number))
            yield text, len(eeg), problem or text_problem(text)


def read_hdf5_eeg(path: Path, number: int) -> np.ndarray:
    """Microvolts [time, 105] of a sentence, float32. Reads the disk; raises DataError."""
    import h5py

    with _one_error(path), h5py.File(path, "r") as file:
        found, problem = orient(_array(_entry(file, file[_GROUP]["rawData"], number)), True)
    if problem is not None:
        raise DataError(problem, where=f"{path}, sentence {number + 1}", allowed="what setup found")
    return found


def _check(file: Any, path: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in file.get(_GROUP, ())]
    if missing:
        what = _GROUP if _GROUP not in file else f"{_GROUP}/{missing[0]}"
        raise DataError(
            f"'{path.name}' has no {what}", where=str(path), allowed="a result file of ZuCo"
        )


def _is_cell(field: Any) -> bool:
    """Whether a field has a reference per sentence; a single sentence has none."""
    return bool(field.dtype == object)


def _count(field: Any) -> int:
    return int(field.size) if _is_cell(field) else 1


def _entry(file: Any, field: Any, number: int) -> Any:
    if not _is_cell(field):
        return field
    # MATLAB 7.3 stores a column or a row.
    index = (number, 0) if field.shape[0] > 1 else (0, number)
    return file[field[index if field.ndim == 2 else number]]


def _array(entry: Any) -> np.ndarray:
    """The numbers of an entry; empty where MATLAB stored the shape of an empty array."""
    if entry.attrs.get("MATLAB_empty", 0) or not hasattr(entry, "dtype"):
        return np.zeros((0,))
    return _values(entry) if entry.dtype.kind in "fiu" else np.zeros((0,))


def _values(entry: Any) -> np.ndarray:
    """All values of a dataset. Raises ValueError if the file does not store them all."""
    if (problem := problem_of(entry)) is not None:
        raise ValueError(f"{entry.name} {problem}")
    return np.asarray(entry[()])


def _text(entry: Any) -> str:
    """Text from UTF-16 code units."""
    if entry.attrs.get("MATLAB_empty", 0):
        return ""
    units = _values(entry).ravel().astype("<u2")
    return units.tobytes().decode("utf-16-le", errors="replace").strip()


def read_matlab5(path: Path) -> Iterator[tuple[str, int, np.ndarray, str | None]]:
    """Text, number of samples, EEG [time, 105] and problem of each sentence.

    Reads the whole file into memory. Raises DataError.
    """
    for entry in _entries(path):
        text = str(getattr(entry, "content", "")).strip()
        raw = np.asarray(getattr(entry, "rawData", np.nan))
        if raw.dtype.kind not in "fiu":
            raw = np.zeros((0,))
        eeg, problem = orient(raw, time_first=False)
        yield text, len(eeg), eeg, problem or text_problem(text)


def _entries(path: Path) -> list[Any]:
    from scipy.io import loadmat

    with _one_error(path):
        found = loadmat(
            path, struct_as_record=False, squeeze_me=True, variable_names=["sentenceData"]
        )
    if "sentenceData" not in found:
        raise DataError(
            f"'{path.name}' has no sentenceData", where=str(path), allowed="a result file of ZuCo"
        )
    return list(np.atleast_1d(found["sentenceData"]))


def orient(raw: np.ndarray, time_first: bool) -> tuple[np.ndarray, str | None]:
    """EEG [time, 105] float32 and its problem, or None.

    A scalar NaN or an empty array is missing EEG of length 0, which is no problem. The axis of
    length 105 is that of channels; if both axes have 105, `time_first` decides.
    """
    nothing = np.zeros((0, CHANNELS), dtype=np.float32)
    if raw.size == 0 or (raw.size == 1 and np.isnan(raw).all()):
        return nothing, None
    if raw.ndim != 2 or CHANNELS not in raw.shape:
        shape = " x ".join(map(str, raw.shape))
        return nothing, f"rawData is {shape or 'a scalar'}, without an axis of {CHANNELS} channels"
    is_time_first = raw.shape[1] == CHANNELS and (time_first or raw.shape[0] != CHANNELS)
    if not np.isfinite(raw).all():
        return nothing, "rawData has non-finite values"
    if (peak := np.abs(raw).max()) > MOST_UV:
        return nothing, f"rawData reaches {peak:.4g} µV, above {MOST_UV:g}"
    return np.asarray(raw if is_time_first else raw.T, dtype=np.float32), None


def text_problem(text: str) -> str | None:
    """The problem of a sentence, or None."""
    return None if any(c.isalnum() for c in text) else NO_WORDS
