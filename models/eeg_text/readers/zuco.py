"""ZuCo result files (MATLAB 5, 7 or 7.3): for each sentence its text and 105 channels of EEG."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.data_files import BadRecords, OnBad, identity
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.readers import matlab
from models.eeg_text.recordings import Item, Recordings, normalized

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
            return matlab.read_hdf5_eeg(self.path, number)
        kept = matlab5_arrays(self.path)
        start, stop = kept["offsets"][number : number + 2]
        return np.array(kept["eeg"][start:stop])


class ZucoSource:
    """See recordings.Source."""

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
    for place in paths:
        try:
            file = _open(place, has_text=not to_predict)
        except DataError as error:
            if on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(place.name, error.message, error.fix)
            continue
        subject = place.stem.removeprefix("results").split("_")[0]  # YAC of resultsYAC_NR.mat
        for number, sentence in enumerate(file.sentences):
            where = f"{place.name}, sentence {number + 1}"
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
        kept: Mapping[str, np.ndarray] = cache.arrays(
            "zuco-index", made_from, lambda: _index(matlab.scan_hdf5(path, has_text))
        )
    else:
        kept = matlab5_arrays(path)
    sentences = [Sentence(*entry) for entry in json.loads(bytes(kept["sentences"]))]
    if not has_text:  # the index of MATLAB 5 files has the problems of texts
        sentences = [
            replace(s, problem=None) if s.problem == matlab.NO_WORDS else s for s in sentences
        ]
    return ZucoFile(path, sentences, is_hdf5)


def matlab5_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """All EEG of a MATLAB 5 or 7 file, mapped from the cache, and its index.

    The first call reads the whole file. Reads and writes the disk.
    """

    def make() -> dict[str, np.ndarray]:
        found = list(matlab.read_matlab5(path))
        eeg = [part for _, _, part, _ in found]
        offsets = np.cumsum([0, *(len(part) for part in eeg)])
        index = _index((text, samples, problem) for text, samples, _, problem in found)
        return {**index, "eeg": np.concatenate(eeg), "offsets": offsets}

    return cache.arrays("zuco", _made_from(path), make)


def _index(sentences: Any) -> dict[str, np.ndarray]:
    text = json.dumps([list(sentence) for sentence in sentences])
    return {"sentences": np.frombuffer(text.encode(), dtype=np.uint8)}
