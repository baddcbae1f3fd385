"""Dataset of a run: recordings, splits, samples and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError, SplitName
from models.common import data_files
from models.common.data_files import BadRecords, OnBad, existing_path, unknown_embedded
from models.common.split import SPLITS
from models.event_seg import splits
from models.event_seg.config import Data
from models.event_seg.formats import COMPANION_SUFFIXES, DSEC, EMBEDDED, FORMATS, MVSEC, recognize
from models.event_seg.readers.files import open_recording
from models.event_seg.readers.recording import EventRecording, shape
from models.event_seg.splits import WindowSplit
from models.event_seg.windows import WindowRules, Windows


def find_recordings(
    path: Path, settings: Data, bad_records: BadRecords
) -> tuple[list[EventRecording], dict[str, Any]]:
    """The chosen recordings of a file or folder, sorted by name, and facts of the other files.

    Invalid recordings of a folder are added to `bad_records`. Raises DataError if there is no
    recording or if sensors differ.
    """
    files = data_files.files(path)
    known = {
        file.relative_to(path).as_posix() if path.is_dir() else file.name: (file, form)
        for file in files
        if (form := recognize(file))
    }
    if not known:
        raise data_files.unknown_format(path, FORMATS)
    chosen, facts = _choose({name: form for name, (_, form) in known.items()}, settings)
    recordings: list[EventRecording] = []
    for name in chosen:
        file, form = known[name]
        try:
            given = settings.window_ms, settings.sensor
            recordings.append(open_recording(file, name, form, *given))
        except DataError as error:
            if len(chosen) == 1:
                raise
            bad_records.add(f"{name} ({error.where})", error.message, error.fix)
    _check_sensors(recordings, path)
    main_files = [file for file in files if not file.name.endswith(COMPANION_SUFFIXES)]
    return recordings, facts | {"ignored_files": len(main_files) - len(known)}


def _choose(formats: Mapping[str, str], settings: Data) -> tuple[Sequence[str], dict[str, Any]]:
    """The names of the recordings to use, of those with `formats`, and facts of the choice."""
    names = list(formats)
    if settings.sequences:
        return splits.choose(names, settings.sequences)
    # Both cameras of DSEC see the same scene: one would be trained on, the other validated.
    right = {n for n in names if formats[n] == DSEC and _left_of(n) in formats and _left_of(n) != n}
    if right:
        text = f"{len(right)}, of scenes whose left camera is used"
        return [name for name in names if name not in right], {"right_cameras": text}
    is_mvsec = set(formats.values()) == {MVSEC}
    if is_mvsec and len(names) > 1 and settings.mvsec_sequence is not None:
        return splits.choose_one(names, settings.mvsec_sequence)
    return names, {}


def _left_of(name: str) -> str:
    return "/".join("left" if part == "right" else part for part in name.split("/"))


def _check_sensors(recordings: Sequence[EventRecording], path: Path) -> None:
    sensors = {recording.sensor: recording.name for recording in recordings}
    if len(sensors) > 1:
        sizes = ", ".join(f"{shape(sides)} ({name})" for sides, name in sorted(sensors.items())[:3])
        raise DataError(
            f"recordings have different sensor sizes: {sizes}",
            where=str(path),
            allowed="recordings of one sensor size",
            fix="use one folder per camera, or  --set 'data.sensor=[HEIGHT,WIDTH]'  for RAW files",
        )


MAX_FOREGROUND_WEIGHT = 10.0
"""Maximum weight of the foreground in the loss."""
MARGIN = 0.03
"""Maximum excess of a noise control over chance."""


def is_embedded(path: str) -> bool:
    """Whether `data.path` is built-in data. Raises DataError for an unknown name."""
    if path.startswith("embedded:") and path not in EMBEDDED:
        raise unknown_embedded(path, EMBEDDED)
    return path in EMBEDDED


def read_files(path: str, settings: Data, on_bad: OnBad) -> tuple[Sequence[EventRecording], dict[str, Any]]:
    """Read the recordings at `data.path`, and facts of the others. Raises DataError."""
    bad_records = BadRecords("recordings")
    recordings, facts = find_recordings(existing_path(path, "; ".join(FORMATS)), settings, bad_records)
    skipped = bad_records.finish(on_bad, len(recordings))
    if not recordings:
        raise DataError(
            f"'{path}' has no usable recording",
            where=f"data.path, skipped: {skipped}",
            allowed="; ".join(FORMATS),
        )
    facts["skipped_recordings"] = skipped
    return recordings, facts | ({"skipped": bad_records.examples()} if skipped else {})


class WindowSplits:
    """Samples of each split."""

    def __init__(
        self,
        recordings: Sequence[EventRecording],
        split: WindowSplit,
        rules: WindowRules,
        source: dict[str, Any],
    ) -> None:
        """`source`: the first facts. Reads labels to count their pixels.

        Raises DataError if the training labels have one class only.
        """
        self.rules, self._source, self._split = rules, source, split
        self.recordings = recordings
        self.splits: dict[SplitName, Windows] = {
            name: Windows(recordings, split.windows[name], rules, number or None)
            for number, name in enumerate(SPLITS)
        }
        self.foreground: dict[str, float] = {}
        for name in ("train", "val"):
            foreground, both = self.splits[name].foreground()
            self.foreground[name] = foreground / both if both else 0.0
        if not 0 < self.foreground["train"] < 1:
            raise DataError(
                "all training labels are " + ("foreground" if self.foreground["train"] else "background"),
                where="data.path",
                allowed="pixels of both classes",
            )

    @property
    def foreground_weight(self) -> float:
        """Weight of class 1 in the loss: background pixels per foreground pixel."""
        share = self.foreground["train"]
        return min(MAX_FOREGROUND_WEIGHT, (1 - share) / share)

    def facts(self) -> dict[str, Any]:
        recordings, first, rules = self.recordings, self.recordings[0], self.rules
        height, width = self.splits["val"].shape
        count = sum(len(recording.all_events) for recording in recordings)
        seconds = sum(float(r.windows[-1, 1] - r.windows[0, 0]) / r.second for r in recordings)
        lengths = window_lengths(recordings)
        labels = "; ".join(sorted({recording.labels for recording in recordings})[:3])
        foreground = {n: round(s, 4) for n, s in self.foreground.items()}
        facts = self._source | {
            "sensor": f"{first.sensor[0]}×{first.sensor[1]} (from {first.sensor_source}), "
            f"downsampled by {rules.downsample}, samples of {height}×{width}",
            "events": f"{count:,} in {len(recordings)} recordings of {seconds:.3g} s",
            "groups": {name: len(self._split.groups[name]) for name in SPLITS},
            "samples": {name: len(self.splits[name]) for name in SPLITS},
            "split": self._split.method,
            "windows": f"{1e3 * np.median(lengths):.3g} ms, {len(lengths)} windows",
            "time_unit": first.unit,
            "labels": labels,
            "foreground": foreground | {"weight": round(self.foreground_weight, 3)},
        }
        if rules.control != "real":  # outside its bounds a noise control indicates a leak
            chance = self.foreground["val"]
            facts["control"] = {"val_iou": {"max": chance + MARGIN, "chance": chance}}
        return facts


def window_lengths(recordings: Sequence[EventRecording]) -> np.ndarray:
    """The length of each window, in seconds."""
    return np.concatenate([np.diff(r.windows, axis=1)[:, 0] / r.second for r in recordings])
