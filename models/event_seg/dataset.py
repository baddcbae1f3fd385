"""The recordings of the settings, and facts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.data_files import (
    BadRecords,
    MissingPackage,
    existing_path,
    known_files,
    unknown_embedded,
)
from gearshift.models.event_seg import splits
from gearshift.models.event_seg.config import Data
from gearshift.models.event_seg.formats import (
    COMPANION_SUFFIXES,
    DSEC,
    EMBEDDED,
    FORMATS,
    MVSEC,
    recognize,
)
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.event_seg.readers.recording import EventRecording, Sides, shape


def read(settings: Data, sensor: Sides) -> tuple[list[EventRecording], dict[str, Any]]:
    """The chosen recordings at `data.path`, and facts of the others; `sensor`: of built-in ones.

    Raises DataError.
    """
    path = settings.path
    bad_records = BadRecords("recordings")
    if path in EMBEDDED:
        from gearshift.models.event_seg import embedded

        clips = {clip.name: clip for clip in embedded.recordings(sensor)}
        names, facts = splits.choose(list(clips), settings.sequences)
        return [clips[name] for name in names], {"format": "rendered", **facts}
    if path.startswith("embedded:"):
        raise unknown_embedded(path, EMBEDDED)
    recordings, facts = find_recordings(
        existing_path(path, "; ".join(FORMATS)), settings, bad_records
    )
    skipped = bad_records.finish(settings.on_bad, len(recordings))
    if not recordings:
        where = f"data.path, skipped: {skipped}"
        allowed = "; ".join(FORMATS)
        raise DataError(f"'{path}' has no usable recording", where=where, allowed=allowed)
    formats = sorted({recording.format.partition(" with ")[0] for recording in recordings})
    facts = {"format": ", ".join(formats), **facts, "skipped_recordings": skipped}
    return recordings, facts | ({"skipped": bad_records.examples()} if skipped else {})


def find_recordings(
    path: Path, settings: Data, bad_records: BadRecords
) -> tuple[list[EventRecording], dict[str, Any]]:
    """The chosen recordings of a file or folder, sorted by name, and facts of the other files.

    Invalid recordings of a folder are added to `bad_records`. Raises DataError if there is no
    recording or if sensors differ.
    """
    known = known_files(path, recognize, FORMATS)
    chosen, facts = _choose({name: form for name, (_, form) in known.items()}, settings)
    copies = data_files.copies({name: known[name][0] for name in chosen})
    chosen = [name for name in chosen if name not in copies]
    facts |= data_files.told_copies(copies)
    recordings: list[EventRecording] = []
    for name in chosen:
        file, form = known[name]
        try:
            given = settings.window_ms, settings.sensor
            recordings.append(open_recording(file, name, form, *given))
        except MissingPackage:
            raise
        except DataError as error:
            if len(chosen) == 1:
                raise
            bad_records.add(f"{name} ({error.where})", error.message, error.fix)
    sensors = {recording.sensor: recording.name for recording in recordings}
    if len(sensors) > 1:
        sizes = ", ".join(f"{shape(sides)} ({name})" for sides, name in sorted(sensors.items())[:3])
        raise DataError(
            f"recordings have different sensor sizes: {sizes}",
            where=str(path),
            allowed="recordings of one sensor size",
            fix="use one folder per camera, or  --set 'data.sensor=[HEIGHT,WIDTH]'  for RAW files",
        )
    others = [file for file in data_files.files(path) if not file.name.endswith(COMPANION_SUFFIXES)]
    return recordings, facts | {"ignored_files": len(others) - len(known)}


def _choose(formats: Mapping[str, str], settings: Data) -> tuple[list[str], dict[str, Any]]:
    """The names of the recordings to use, of those with `formats`, and facts of the choice."""
    names = list(formats)
    # Both cameras of DSEC see the same scene: one would be trained on, the other validated.
    right = {n for n in names if formats[n] == DSEC and _left_of(n) in formats and _left_of(n) != n}
    if right and not settings.sequences:
        text = f"{len(right)}, of scenes whose left camera is used"
        return [name for name in names if name not in right], {"right_cameras": text}
    is_mvsec = set(formats.values()) == {MVSEC} and len(names) > 1 and not settings.sequences
    return splits.choose(names, settings.sequences, settings.mvsec_sequence if is_mvsec else None)


def _left_of(name: str) -> str:
    return "/".join("left" if part == "right" else part for part in name.split("/"))


def facts(recordings: Sequence[EventRecording]) -> dict[str, Any]:
    """What a user should know of the recordings."""
    first = recordings[0]
    lengths = window_lengths(recordings)
    count = sum(len(recording.all_events) for recording in recordings)
    seconds = sum(float(r.windows[-1, 1] - r.windows[0, 0]) / r.second for r in recordings)
    return {
        "sensor": f"{shape(first.sensor)} (from {first.sensor_source})",
        "events": f"{count:,} in {len(recordings)} recordings of {seconds:.3g} s",
        "windows": f"{1e3 * np.median(lengths):.3g} ms, {len(lengths)} windows",
        "time_unit": first.unit,
        "labels": "; ".join(sorted({recording.labels for recording in recordings})[:3]),
    }


def window_lengths(recordings: Sequence[EventRecording]) -> np.ndarray:
    """The length of each window, in seconds."""
    return np.concatenate([np.diff(r.windows, axis=1)[:, 0] / r.second for r in recordings])
