"""ZuCo result files (MATLAB 5, 7 or 7.3): for each sentence its text and 105 channels of EEG."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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

NO_WORDS = "content has no words"
UNIT = "microvolts, as ZuCo documents"
ALLOWED = "results<SUBJECT>_<TASK>.mat of ZuCo, with sentenceData of content and rawData"
_GROUP = "sentenceData"
_VERSION = 1
Sentence = tuple[str, int, str | None]
"""Its text, the number of its samples (0: no EEG, as for some of ZuCo), and its problem."""


def read(path: Path, on_bad: OnBad, to_predict: bool = False) -> Recordings:
    """The sentences of a file, or of all ZuCo files of a folder, that have EEG.

    Sentences without EEG are counted by reader. If `to_predict`, texts are not read. Reads the
    disk; raises DataError.
    """
    items: list[Item] = []
    bad_records, missing = BadRecords("sentences"), Counter[str]()
    paths = [p for p in formats.candidates(path) if formats.of_file(p) == formats.ZUCO]
    for file in paths:
        try:
            sentences, load = _open(file, has_text=not to_predict)
        except DataError as error:
            if on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(file.name, error.message, error.fix)
            continue
        subject = file.stem.removeprefix("results").split("_")[0]  # YAC of resultsYAC_NR.mat
        for number, (text, samples, problem) in enumerate(sentences):
            where = f"{file.name}, sentence {number + 1}"
            if problem is not None:
                bad_records.add(where, problem)
            elif not samples:
                missing[subject] += 1
            else:
                read_eeg = partial(load, file, number)
                items.append(Item(text, subject, normalized(text), samples, where, read_eeg))
    skipped = bad_records.finish(on_bad, len(items))
    if not items:
        raise DataError(f"no sentence of '{path}' has EEG", where="data.path", allowed=ALLOWED)
    left_out = Counter({"without_eeg": missing.total(), "bad": skipped})
    notes = {"without_eeg": dict(sorted(missing.items()))} if missing else {}
    return Recordings(str(path), formats.ZUCO, UNIT, items, left_out, notes)


def _open(path: Path, has_text: bool) -> tuple[list[Sentence], Callable[[Path, int], np.ndarray]]:
    """The sentences of a file by their index, which is cached, and what reads their EEG."""
    with path.open("rb") as stream:
        is_hdf5 = formats.is_hdf5(stream.read(1024))
    if is_hdf5:
        made_from = _made_from(path) | ({} if has_text else {"has_text": False})
        arrays: Mapping[str, np.ndarray] = cache.arrays(
            "zuco-index", made_from, lambda: _index(_scan_hdf5(path, has_text))
        )
    else:
        arrays = matlab5_arrays(path)
    sentences = [tuple(sentence) for sentence in json.loads(bytes(arrays["sentences"]))]
    if not has_text:  # the index of MATLAB 5 files has the problems of texts
        sentences = [(t, n, None if problem == NO_WORDS else problem) for t, n, problem in sentences]
    return sentences, read_hdf5_eeg if is_hdf5 else read_matlab5_eeg


def _made_from(path: Path) -> dict[str, Any]:
    return {"version": _VERSION, "path": str(path.resolve()), "file": identity(path)}


def _index(sentences: Iterable[Sentence]) -> dict[str, np.ndarray]:
    return {"sentences": np.frombuffer(json.dumps(list(sentences)).encode(), dtype=np.uint8)}


def _errors(path: Path) -> AbstractContextManager[None]:
    where, fix = str(path), "copy it again from the data set, or leave it out"
    message = f"'{path.name}' cannot be read"
    return library_errors(message, where, allowed="a complete MATLAB file", fix=fix)


@contextmanager
def _fields(path: Path, *names: str) -> Iterator[tuple[Any, ...]]:
    """The open HDF5 file, and its fields of those `names`. Raises DataError."""
    import h5py

    with _errors(path), h5py.File(path, "r") as file:
        group = file.get(_GROUP)
        missing = [name for name in names if group is None or name not in group]
        if missing:
            what = _GROUP if group is None else f"{_GROUP}/{missing[0]}"
            message, allowed = f"'{path.name}' has no {what}", "a result file of ZuCo"
            raise DataError(message, where=str(path), allowed=allowed)
        yield file, *(group[name] for name in names)


def _scan_hdf5(path: Path, has_text: bool) -> Iterator[Sentence]:
    """The sentences; one is in memory at a time. Unless `has_text`, texts are empty, not read."""
    with _fields(path, "rawData", *(["content"] if has_text else [])) as (file, field, *content):
        for number in range(int(field.size) if field.dtype == object else 1):
            eeg, problem = orient(_numbers(_entry(file, field, number)), time_first=True)
            text = ""
            if has_text:
                units = _numbers(_entry(file, content[0], number)).ravel().astype("<u2")
                text = units.tobytes().decode("utf-16-le", errors="replace").strip()
                problem = problem or text_problem(text)
            yield text, len(eeg), problem


def read_hdf5_eeg(path: Path, number: int) -> np.ndarray:
    """Microvolts [time, 105] of a sentence, float32. Reads the disk; raises DataError."""
    with _fields(path, "rawData") as (file, field):
        eeg, problem = orient(_numbers(_entry(file, field, number)), time_first=True)
    if problem is not None:
        raise DataError(problem, where=f"{path}, sentence {number + 1}", allowed="what setup found")
    return eeg


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


def matlab5_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """All EEG of a MATLAB 5 or 7 file, mapped from the cache, and its index.

    The first call reads the whole file into memory. Reads and writes the disk. Raises DataError.
    """

    def make() -> dict[str, np.ndarray]:
        from scipy.io import loadmat

        with _errors(path):
            check_matlab5(path)
            options = {"struct_as_record": False, "squeeze_me": True}
            content = loadmat(path, variable_names=[_GROUP], **options)
        if _GROUP not in content:
            message, allowed = f"'{path.name}' has no {_GROUP}", "a result file of ZuCo"
            raise DataError(message, where=str(path), allowed=allowed)
        sentences, eeg = list[Sentence](), list[np.ndarray]()
        for entry in np.atleast_1d(content[_GROUP]):
            text = str(getattr(entry, "content", "")).strip()
            values = np.asarray(getattr(entry, "rawData", np.nan))
            values = values if values.dtype.kind in "fiu" else np.zeros((0,))
            part, problem = orient(values, time_first=False)
            eeg.append(part)
            sentences.append((text, len(part), problem or text_problem(text)))
        offsets = np.cumsum([0, *map(len, eeg)])
        return {**_index(sentences), "eeg": np.concatenate(eeg), "offsets": offsets}

    return cache.arrays("zuco", _made_from(path), make)


def read_matlab5_eeg(path: Path, number: int) -> np.ndarray:
    """As read_hdf5_eeg, from the cache."""
    arrays = matlab5_arrays(path)
    start, stop = arrays["offsets"][number : number + 2]
    return np.array(arrays["eeg"][start:stop])


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
