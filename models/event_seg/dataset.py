"""From settings to samples: recordings, their splits, the balance of classes, and what to tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError, SplitName
from models.common import data_files
from models.common.data_files import BadRecords, OnBad, existing_path, unknown_embedded
from models.common.split import SPLITS
from models.event_seg.formats import ASIDE, EMBEDDED, FORMATS, recognise
from models.event_seg.readers.hdf5 import LEGAL, SUFFIX
from models.event_seg.readers.mvsec import MvsecRecording
from models.event_seg.readers.prophesee import RawRecording, Told
from models.event_seg.readers.recording import Recording
from models.event_seg.splits import Parts
from models.event_seg.windows import Rules, Windows


def recordings(path: Path, told: Told, faults: BadRecords) -> tuple[list[Recording], int]:
    """The recordings in a file or folder, by name, and how many files are none.

    A recording of a folder that cannot be used goes to `faults`. Raises DataError where there is
    none, and where sensors differ.
    """
    files = data_files.files(path)
    chosen = [file for file in files if recognise(file)]
    if not chosen:
        raise data_files.unknown_format(path, FORMATS)
    found: list[Recording] = []
    for file in chosen:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            found.append(_open(file, name, told))
        except DataError as error:
            if len(chosen) == 1:
                raise
            faults.add(f"{name} ({error.where})", error.message)
    _check_sensors(found, path)
    others = len([file for file in files if not file.name.endswith(ASIDE)]) - len(chosen)
    return found, others


def _open(file: Path, name: str, told: Told) -> Recording:
    if recognise(file) == FORMATS[0]:
        return MvsecRecording(file, name)
    return RawRecording(file, name, told)


def _check_sensors(found: Sequence[Recording], path: Path) -> None:
    sensors = {recording.sensor: recording.name for recording in found}
    if len(sensors) > 1:
        sizes = ", ".join(f"{h}×{w} ({name})" for (h, w), name in sorted(sensors.items())[:3])
        raise DataError(
            f"recordings of different sensors: {sizes}",
            where=str(path),
            allowed="recordings of one size",
            fix="one folder a camera, or  --set data.sensor=[HEIGHT,WIDTH]  for RAW files",
        )


HEAVIEST = 10.0
"""The weight of the foreground in the loss, at most."""
MARGIN = 0.03
"""How far a noise control may lie above chance."""


def is_embedded(path: str) -> bool:
    """Whether `data.path` names an embedded set. Raises DataError for one that is not known."""
    if path.startswith("embedded:") and path not in EMBEDDED:
        raise unknown_embedded(path, EMBEDDED)
    return path in EMBEDDED


def read_files(path: str, told: Told, on_bad: OnBad) -> tuple[Sequence[Recording], dict[str, Any]]:
    """The recordings that `data.path` names, and what was left out. Raises DataError."""
    from models.event_seg.dataset import recordings

    faults = BadRecords("recordings")
    found, others = recordings(existing_path(path, "; ".join(FORMATS)), told, faults)
    skipped = faults.finish(on_bad, len(found))
    if not found:
        raise DataError(
            f"'{path}' holds no recording that can be used",
            where=f"data.path, {skipped} left out",
            allowed="; ".join(FORMATS),
        )
    left_out: dict[str, Any] = {"skipped_recordings": skipped, "ignored_files": others}
    return found, left_out | ({"skipped": faults.examples()} if skipped else {})


def is_labelled(recordings: Sequence[Recording], path: str, objective: str) -> bool:
    """Whether labels are learnt. Raises DataError if `objective` wants some that are not there."""
    missing = [recording.name for recording in recordings if not recording.labels]
    if objective == "masked-voxels" or (objective == "auto" and len(missing) == len(recordings)):
        return False
    if missing:
        told = f"{len(missing)} of {len(recordings)} recordings have no labels: {missing[0]}"
        raise DataError(
            told + (", ..." if missing[1:] else ""),
            where=f"data.path '{path}'",
            allowed=f"frames (MVSEC), or NAME{SUFFIX} beside NAME.raw: {LEGAL}",
            fix="learn without labels:  --set model.objective=masked-voxels",
        )
    return True


class Dataset:
    """The samples of each split."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        parts: Parts,
        rules: Rules,
        source: dict[str, Any],
    ) -> None:
        """`source` goes first into the facts. Reads labels, to count their pixels.

        Raises DataError if the labels for training are of one class.
        """
        self.rules, self._source, self._parts = rules, source, parts
        self.recordings = recordings
        self.splits: dict[SplitName, Windows] = {
            name: Windows(recordings, parts.windows[name], rules, number or None)
            for number, name in enumerate(SPLITS)
        }
        self.foreground: dict[str, float] = {}
        if not rules.is_masked:
            self.foreground = {name: _share(self.splits[name]) for name in ("train", "val")}
            _check_classes(self.foreground["train"])

    @property
    def foreground_weight(self) -> float:
        """Of class 1 in the loss: pixels of the background for one of the foreground."""
        if self.rules.is_masked:
            return 1.0
        share = self.foreground["train"]
        return min(HEAVIEST, (1 - share) / share)

    def facts(self) -> dict[str, Any]:
        """What a person should know: source, splits, rates, balance, what was left out."""
        first = self.recordings[0]
        height, width = self.splits["val"].shape
        facts = self._source | {
            "sensor": f"{first.sensor[0]}×{first.sensor[1]} (from {first.sensor_source}), "
            f"downsampled by {self.rules.downsample}, samples of {height}×{width}",
            "events": _rate(self.recordings),
            "groups": {name: len(self._parts.groups[name]) for name in SPLITS},
            "samples": {name: len(self.splits[name]) for name in SPLITS},
            "split": self._parts.told,
            "windows": _lengths(self.recordings),
            "time_unit": first.unit,
            "labels": self._labels(),
        }
        if self.foreground:
            facts["foreground"] = {n: round(s, 4) for n, s in self.foreground.items()}
            facts["foreground"]["weight"] = round(self.foreground_weight, 3)
        if self.rules.control != "real":
            facts["control"] = self._control()
        return facts

    def _labels(self) -> str:
        if self.rules.is_masked:
            why = "" if any(r.labels for r in self.recordings) else ", for there are no labels"
            return f"none: learns the events on hidden pixels{why}"
        return "; ".join(sorted({recording.labels for recording in self.recordings})[:3])

    def _control(self) -> dict[str, dict[str, float]]:
        """The band of the goal outside which a control tells a leak."""
        if self.rules.is_masked:
            return {"val_masked_r2": {"max": MARGIN, "chance": 0.0}}
        chance = self.foreground["val"]
        return {"val_iou": {"max": chance + MARGIN, "chance": chance}}


def _share(windows: Windows) -> float:
    foreground, both = windows.foreground()
    return foreground / both if both else 0.0


def _check_classes(share: float) -> None:
    if not 0 < share < 1:
        raise DataError(
            f"the labels for training are all {'foreground' if share else 'background'}",
            where="data.path",
            allowed="pixels of both classes",
        )


def _rate(recordings: Sequence[Recording]) -> str:
    count = sum(recording.count for recording in recordings)
    seconds = sum(float(r.windows[-1, 1] - r.windows[0, 0]) / r.second for r in recordings)
    return f"{count:,} in {len(recordings)} recordings of {seconds:.3g} s"


def _lengths(recordings: Sequence[Recording]) -> str:
    seconds = np.concatenate(
        [np.diff(r.windows, axis=1)[:, 0] / r.second for r in recordings if len(r.windows)]
    )
    return f"{1e3 * np.median(seconds):.3g} ms, {len(seconds)} in all"
