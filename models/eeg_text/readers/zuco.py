"""ZuCo result files (MATLAB 5, 7 or 7.3): for each sentence its text and 105 channels of EEG."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad, hdf5_problem, identity
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.recordings import MOST_UV, Item, Recordings, normalized

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
        eeg, problem = orient(_array(_entry(file, file[_GROUP]["rawData"], number)), True)
    if problem is not None:
        raise DataError(problem, where=f"{path}, sentence {number + 1}", allowed="what setup found")
    return eeg


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
    if (problem := hdf5_problem(entry)) is not None:
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
        content = loadmat(
            path, struct_as_record=False, squeeze_me=True, variable_names=["sentenceData"]
        )
    if "sentenceData" not in content:
        raise DataError(
            f"'{path.name}' has no sentenceData", where=str(path), allowed="a result file of ZuCo"
        )
    return list(np.atleast_1d(content["sentenceData"]))


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


UNIT = "microvolts, as ZuCo documents"
ALLOWED = "results<SUBJECT>_<TASK>.mat of ZuCo, with sentenceData of content and rawData"
_VERSION = 1


@dataclass(frozen=True)
class Sentence:
    """The index entry of one sentence."""

    text: str
    samples: int
    """0: no EEG, as for some sentences of ZuCo."""
    problem: str | None = None


@dataclass(frozen=True)
class ZucoFile:
    """A file and the index of its sentences, which is cached."""

    path: Path
    sentences: list[Sentence]
    is_hdf5: bool

    def eeg(self, number: int) -> np.ndarray:
        """Microvolts [time, 105] of a sentence, float32. Reads the disk."""
        if self.is_hdf5:
            return read_hdf5_eeg(self.path, number)
        arrays = matlab5_arrays(self.path)
        start, stop = arrays["offsets"][number : number + 2]
        return np.array(arrays["eeg"][start:stop])


class ZucoSource:
    """See recordings.SegmentSource."""

    def __init__(self, files: list[ZucoFile], places: list[tuple[int, int]]) -> None:
        """`places`: for each item, its file and its sentence there."""
        self.files, self.places = files, places

    def eeg(self, number: int) -> np.ndarray:
        file, sentence = self.places[number]
        return self.files[file].eeg(sentence)

    def recorded(self, number: int) -> np.ndarray:
        return np.ones(CHANNELS, dtype=bool)


def read(path: Path, on_bad: OnBad, to_predict: bool = False) -> Recordings:
    """The sentences of a file, or of all ZuCo files of a folder, that have EEG.

    Sentences without EEG are counted by reader. If `to_predict`, texts are not read. Reads the
    disk; raises DataError.
    """
    files: list[ZucoFile] = []
    items: list[Item] = []
    places: list[tuple[int, int]] = []
    bad_records, missing = BadRecords("sentences"), Counter[str]()
    paths = [p for p in formats.candidates(path) if formats.of_file(p) == formats.ZUCO]
    for file_path in paths:
        try:
            file = _open(file_path, has_text=not to_predict)
        except DataError as error:
            if on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(file_path.name, error.message, error.fix)
            continue
        subject = file_path.stem.removeprefix("results").split("_")[0]  # YAC of resultsYAC_NR.mat
        for number, sentence in enumerate(file.sentences):
            where = f"{file_path.name}, sentence {number + 1}"
            if sentence.problem is not None:
                bad_records.add(where, sentence.problem)
            elif not sentence.samples:
                missing[subject] += 1
            else:
                group = normalized(sentence.text)
                items.append(Item(sentence.text, subject, group, sentence.samples, where))
                places.append((len(files), number))
        files.append(file)
    skipped = bad_records.finish(on_bad, len(items))
    if not items:
        raise DataError(f"no sentence of '{path}' has EEG", where="data.path", allowed=ALLOWED)
    left_out = Counter({"without_eeg": missing.total(), "bad": skipped})
    notes = {"without_eeg": dict(sorted(missing.items()))} if missing else {}
    source = ZucoSource(files, places)
    return Recordings(str(path), formats.ZUCO, UNIT, items, source, left_out, notes)


def _made_from(path: Path) -> dict[str, Any]:
    return {"version": _VERSION, "path": str(path.resolve()), "file": identity(path)}


def _open(path: Path, has_text: bool) -> ZucoFile:
    with path.open("rb") as stream:
        is_hdf5 = formats.is_hdf5(stream.read(1024))
    if is_hdf5:
        made_from = _made_from(path) | ({} if has_text else {"has_text": False})
        arrays: Mapping[str, np.ndarray] = cache.arrays(
            "zuco-index", made_from, lambda: _index(scan_hdf5(path, has_text))
        )
    else:
        arrays = matlab5_arrays(path)
    sentences = [Sentence(*entry) for entry in json.loads(bytes(arrays["sentences"]))]
    if not has_text:  # the index of MATLAB 5 files has the problems of texts
        sentences = [replace(s, problem=None) if s.problem == NO_WORDS else s for s in sentences]
    return ZucoFile(path, sentences, is_hdf5)


def matlab5_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """All EEG of a MATLAB 5 or 7 file, mapped from the cache, and its index.

    The first call reads the whole file. Reads and writes the disk.
    """

    def make() -> dict[str, np.ndarray]:
        entries = list(read_matlab5(path))
        eeg = [part for _, _, part, _ in entries]
        offsets = np.cumsum([0, *(len(part) for part in eeg)])
        index = _index((text, samples, problem) for text, samples, _, problem in entries)
        return {**index, "eeg": np.concatenate(eeg), "offsets": offsets}

    return cache.arrays("zuco", _made_from(path), make)


def _index(sentences: Any) -> dict[str, np.ndarray]:
    text = json.dumps([list(sentence) for sentence in sentences])
    return {"sentences": np.frombuffer(text.encode(), dtype=np.uint8)}
