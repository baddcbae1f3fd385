"""ZuCo result files (MATLAB 5, 7 or 7.3): for each sentence its text and 105 channels of EEG."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad, check_matlab5, hdf5_problem, identity, library_errors
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.recordings import MOST_UV, Item, Recordings, normalized

UNIT = "microvolts, as ZuCo documents"
ALLOWED = "results<SUBJECT>_<TASK>.mat of ZuCo, with sentenceData of content and rawData"
_GROUP = "sentenceData"


def read(path: Path, on_bad: OnBad, to_predict: bool = False) -> Recordings:
    """The sentences of a file, or of all ZuCo files of a folder, that have EEG.

    Sentences without EEG are counted by reader. If `to_predict`, texts are not needed. Reads the
    disk; raises DataError.
    """
    items: list[Item] = []
    bad_records, missing = BadRecords("sentences"), Counter[str]()
    paths = [p for p in formats.candidates(path) if formats.of_file(p) == formats.ZUCO]
    for file in paths:
        try:
            arrays = sentence_arrays(file)
        except DataError as error:
            if on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(file.name, error.message, error.fix)
            continue
        subject = file.stem.removeprefix("results").split("_")[0]  # YAC of resultsYAC_NR.mat
        lengths = np.diff(arrays["offsets"]).tolist()
        sentences = zip(json.loads(bytes(arrays["texts"])), lengths, strict=True)
        for number, ((text, problem), samples) in enumerate(sentences):
            where = f"{file.name}, sentence {number + 1}"
            if not problem and samples and not to_predict and not normalized(text):
                problem = "content has no words"
            if problem:
                bad_records.add(where, problem)
            elif not samples:
                missing[subject] += 1
            else:
                load = partial(read_eeg, file, number)
                items.append(Item(text, subject, normalized(text), samples, where, load))
    skipped = bad_records.finish(on_bad, len(items))
    if not items:
        raise DataError(f"no sentence of '{path}' has EEG", where="data.path", allowed=ALLOWED)
    left_out = Counter({"without_eeg": missing.total(), "bad": skipped})
    notes = {"without_eeg": dict(sorted(missing.items()))} if missing else {}
    return Recordings(str(path), formats.ZUCO, UNIT, items, left_out, notes)


def sentence_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Text and problem of each sentence as JSON, all EEG, and the offset of each in it; from the cache.

    The first call reads the EEG of the whole file into memory. Reads and writes the disk. Raises
    DataError.
    """

    def make() -> dict[str, np.ndarray]:
        with path.open("rb") as stream:
            is_hdf5 = formats.is_hdf5(stream.read(1024))
        message, fix = f"'{path.name}' cannot be read", "copy it again from the data set, or leave it out"
        texts, eeg = [], [np.zeros((0, CHANNELS), dtype=np.float32)]
        with library_errors(message, str(path), allowed="a complete MATLAB file", fix=fix):
            for text, values in _hdf5_sentences(path) if is_hdf5 else _matlab5_sentences(path):
                part, problem = orient(values, time_first=is_hdf5)
                eeg.append(part)
                texts.append((text, problem))
        encoded = np.frombuffer(json.dumps(texts).encode(), dtype=np.uint8)
        offsets = np.cumsum([len(part) for part in eeg])
        return {"texts": encoded, "eeg": np.concatenate(eeg), "offsets": offsets}

    made_from = {"version": 2, "path": str(path.resolve()), "file": identity(path)}
    return cache.arrays("zuco", made_from, make)


def read_eeg(path: Path, number: int) -> np.ndarray:
    """Microvolts [time, 105] of a sentence, float32. Reads the disk; raises DataError."""
    arrays = sentence_arrays(path)
    start, stop = arrays["offsets"][number : number + 2]
    return np.array(arrays["eeg"][start:stop])


def _lacks(path: Path, name: str) -> DataError:
    return DataError(f"'{path.name}' has no {name}", where=str(path), allowed="a result file of ZuCo")


def _matlab5_sentences(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    from scipy.io import loadmat

    check_matlab5(path)
    content = loadmat(path, variable_names=[_GROUP], struct_as_record=False, squeeze_me=True)
    if _GROUP not in content:
        raise _lacks(path, _GROUP)
    for entry in np.atleast_1d(content[_GROUP]):
        values = np.asarray(getattr(entry, "rawData", np.nan))
        values = values if values.dtype.kind in "fiu" else np.zeros((0,))
        yield str(getattr(entry, "content", "")).strip(), values


def _hdf5_sentences(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    import h5py

    with h5py.File(path, "r") as file:
        group = file.get(_GROUP)
        if group is None or "rawData" not in group:
            raise _lacks(path, _GROUP if group is None else f"{_GROUP}/rawData")
        eeg, texts = group["rawData"], group.get("content")
        for number in range(int(eeg.size) if eeg.dtype == object else 1):
            units = np.zeros(0) if texts is None else _numbers(_entry(file, texts, number))
            text = units.ravel().astype("<u2").tobytes().decode("utf-16-le", errors="replace")
            yield text.strip(), _numbers(_entry(file, eeg, number))


def _entry(file: Any, field: Any, number: int) -> Any:
    """What a field has for a sentence: a reference, or for a single sentence the value."""
    if field.dtype != object:
        return field
    # MATLAB 7.3 stores a column or a row.
    index = (number, 0) if field.shape[0] > 1 else (0, number)
    return file[field[index if field.ndim == 2 else number]]


def _numbers(entry: Any) -> np.ndarray:
    """The numbers of an entry; empty where MATLAB stored the shape of an empty array.

    Raises ValueError if the file does not store them all.
    """
    is_empty = entry.attrs.get("MATLAB_empty", 0) or not hasattr(entry, "dtype")
    if is_empty or entry.dtype.kind not in "fiu":
        return np.zeros((0,))
    if (problem := hdf5_problem(entry)) is not None:
        raise ValueError(f"{entry.name} {problem}")
    return np.asarray(entry[()])


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
