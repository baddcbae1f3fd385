"""ZuCo result files (MATLAB 5, 7 or 7.3): for each sentence its text and 105 channels of EEG."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from gearshift.models.common import array_file, cache, hdf5, matlab
from gearshift.models.common.data_files import check_reader, identity
from gearshift.models.common.data_reports import BadRecords, library_errors
from gearshift.models.eeg_text.config import CHANNELS
from gearshift.models.eeg_text.recordings import MOST_UV, Item, Use, normalized

_GROUP = "sentenceData"
_NOTHING = np.zeros((0, CHANNELS), dtype=np.float32)


def read(
    file: Path,
    use: Use,
    bad_records: BadRecords,
    missing: Counter[str],
) -> list[Item]:
    """The sentences of a file that have EEG; counts those without in `missing`, by reader.

    Reads the disk; raises DataError.
    """
    items = []
    arrays = sentence_arrays(file)
    reader = subject(file) or file.stem
    lengths = np.diff(arrays["offsets"]).tolist()
    sentences = json.loads(bytes(arrays["texts"]))
    for number, (text, problem) in enumerate(sentences):
        where = f"{file.name}, sentence {number + 1}"
        group = normalized(text)
        samples = lengths[number]
        if samples and not group and use != "predict":
            problem = "content has no words"
        if problem:
            bad_records.add(where, problem)
        elif not samples:
            missing[reader] += 1
        else:
            load = partial(read_eeg, file, number)
            items.append(Item(text, reader, group, samples, where, load))
    return items


def subject(path: Path) -> str:
    """The reader of a file, YAC of resultsYAC_NR.mat; empty for another name."""
    match = re.match(r"results([0-9A-Za-z]+)_", path.name)
    return match[1] if match else ""


def sentence_arrays(path: Path) -> Mapping[str, ndarray]:
    """Text and problem of each sentence as JSON, all EEG, and the offset of each in it.

    From the cache. The first call reads the EEG of the whole file into memory. Reads and writes
    the disk. Raises DataError.
    """

    def make() -> array_file.Arrays:
        texts = []
        eeg = [_NOTHING]
        with library_errors(
            f"'{path.name}' cannot be read",
            str(path),
            allowed="a complete MATLAB file",
            hint="copy it again from the data set, or leave it out",
        ):
            is_hdf5 = hdf5.is_hdf5(path)
            sentences = _hdf5_sentences if is_hdf5 else _matlab5_sentences
            for text, values in sentences(path):
                # MATLAB 7.3 stores arrays transposed.
                part, problem = orient(values, time_first=is_hdf5)
                eeg.append(part)
                texts.append((text.strip(), problem))
        return {
            "texts": np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8),
            "eeg": np.concatenate(eeg),
            "offsets": np.cumsum(list(map(len, eeg))),
        }

    made_from = {"version": 2, "path": str(path.resolve()), "file": identity(path)}
    return cache.arrays("zuco", made_from, make)


def read_eeg(path: Path, number: int) -> ndarray:
    """Microvolts [time, 105] of a sentence, float32. Reads the disk; raises DataError."""
    arrays = sentence_arrays(path)
    start, stop = arrays["offsets"][number : number + 2]
    return np.array(arrays["eeg"][start:stop])


def _matlab5_sentences(path: Path) -> Iterator[tuple[str, ndarray]]:
    from scipy.io import loadmat

    matlab.check(path, _GROUP)
    content = loadmat(path, struct_as_record=False, squeeze_me=True, variable_names=[_GROUP])
    for entry in np.atleast_1d(content[_GROUP]):
        yield str(getattr(entry, "content", "")), np.asarray(getattr(entry, "rawData", np.nan))


def _hdf5_sentences(path: Path) -> Iterator[tuple[str, ndarray]]:
    check_reader("h5py", path)
    import h5py

    with h5py.File(path, "r") as file:
        eeg = hdf5.member(file, f"{_GROUP}/rawData")
        texts = hdf5.member(file, f"{_GROUP}/content")
        if eeg is None:
            raise ValueError(f"it has no {_GROUP}/rawData")
        for field in filter(None, (eeg, texts)):
            _check_array(field)
        count = eeg.size if eeg.dtype == object else 1
        for number in range(count):
            text = ""
            if texts is not None:
                units = _numbers(file, texts, number).ravel().astype("<u2")
                text = units.tobytes().decode("utf-16-le", errors="replace")
            yield text, _numbers(file, eeg, number)


def _numbers(
    file: Any,
    field: Any,
    number: int,
) -> ndarray:
    """What a field has for a sentence; empty where MATLAB stored the shape of an empty array.

    Raises ValueError as `_check_array`.
    """
    entry = field
    if field.dtype == object:  # references, in a column or a row; otherwise a single sentence
        entry = file[field[np.unravel_index(number, field.shape)]]
    if entry.attrs.get("MATLAB_empty", 0) or not hasattr(entry, "dtype"):
        return _NOTHING
    _check_array(entry)
    return np.asarray(entry[()])


def _check_array(array: Any) -> None:
    """Raise ValueError if the file does not store all of an array itself."""
    problem = hdf5.problem(array)
    if problem is not None:
        raise ValueError(f"{array.name} {problem}")


def orient(raw: ndarray, time_first: bool) -> tuple[ndarray, str | None]:
    """EEG [time, 105] float32 and its problem, or None.

    A scalar NaN or an empty array is missing EEG of length 0, which is no problem. The axis of
    length 105 is that of channels; if both axes have 105, `time_first` decides.
    """
    is_number = raw.dtype.kind in "fiu"
    if not is_number or raw.size == 0 or (raw.size == 1 and np.isnan(raw).all()):
        return _NOTHING, None
    if raw.ndim != 2 or CHANNELS not in raw.shape:
        return (
            _NOTHING,
            f"rawData has the shape {raw.shape}, without an axis of {CHANNELS} channels",
        )
    if not (np.abs(raw) <= MOST_UV).all():  # also NaN
        return _NOTHING, f"rawData has a value that is not finite or above {MOST_UV:g} µV"
    if raw.shape != (CHANNELS, CHANNELS):
        time_first = raw.shape[1] == CHANNELS
    return np.asarray(raw if time_first else raw.T, dtype=np.float32), None
