"""The recordings of the settings, and facts of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError
from gearshift.models.catalog import local_path
from gearshift.models.common import data_files
from gearshift.models.common.data_files import existing_path, known_files
from gearshift.models.common.data_reports import BadRecords, MissingPackage, unknown_embedded
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


def read(
    settings: Data,
    sensor: Sides,
) -> tuple[list[EventRecording], dict[str, Any]]:
    """The chosen recordings at `data.path`, and facts of the others; `sensor`: of built-in ones.

    Raises DataError.
    """
    path = local_path(settings.path)
    if path in EMBEDDED:
        from gearshift.models.event_seg import embedded

        clips = {clip.name: clip for clip in embedded.recordings(sensor)}
        names, facts = splits.choose(list(clips), settings.sequences)
        return [clips[name] for name in names], {"format": "rendered", **facts}
    if path.startswith("embedded:"):
        raise unknown_embedded(path, EMBEDDED)

    allowed = "; ".join(FORMATS)
    bad_records = BadRecords("recordings")
    recordings, facts = find_recordings(existing_path(path, allowed), settings, bad_records)
    skipped = bad_records.finish(settings.on_bad, len(recordings))
    if not recordings:
        where = f"data.path, skipped: {skipped}"
        raise DataError(f"'{path}' has no usable recording", where=where, allowed=allowed)
    formats = {recording.format.partition(" with ")[0] for recording in recordings}
    facts = {"format": ", ".join(sorted(formats)), **facts, "skipped_recordings": skipped}
    if skipped:
        facts["skipped"] = bad_records.examples()
    return recordings, facts


def find_recordings(
    path: Path,
    settings: Data,
    bad_records: BadRecords,
) -> tuple[list[EventRecording], dict[str, Any]]:
    """The chosen recordings of a file or folder, sorted by name, and facts of the other files.

    Invalid recordings of a folder are added to `bad_records`. Raises DataError if there is no
    recording or if sensors differ.
    """
    known = known_files(path, recognize, FORMATS)
    names, facts = _choose({name: form for name, (_, form) in known.items()}, settings)
    # A copy under another name would be trained on and validate.
    copies = data_files.copies({name: known[name][0] for name in names})
    names = [name for name in names if name not in copies]
    facts |= data_files.told_copies(copies)
    recordings: list[EventRecording] = []
    for name in names:
        file, form = known[name]
        try:
            recordings.append(open_recording(file, name, form, settings.window_ms, settings.sensor))
        except MissingPackage:
            raise
        except DataError as error:
            if len(names) == 1:
                raise
            bad_records.add(f"{name} ({error.where})", error.message, error.fix or error.hint)
    sensors = {shape(recording.sensor): recording.name for recording in recordings}
    if len(sensors) > 1:
        raise DataError(
            f"recordings have different sensor sizes: {sensors}",
            where=str(path),
            allowed="recordings of one sensor size",
            hint="use one folder per camera, or  --set 'data.sensor=[HEIGHT,WIDTH]'  for RAW files",
        )
    num_recordings = sum(
        not file.name.endswith(COMPANION_SUFFIXES) for file in data_files.files(path)
    )
    facts["ignored_files"] = num_recordings - len(known)
    return recordings, facts


def _choose(
    formats: Mapping[str, str],
    settings: Data,
) -> tuple[list[str], dict[str, Any]]:
    """The names of the recordings to use, of those with `formats`, and facts of the choice."""
    names = list(formats)
    if settings.sequences:
        return splits.choose(names, settings.sequences)
    # Both cameras of DSEC see the same scene: one would be trained on, the other validated.
    left = []
    for name, form in formats.items():
        other = re.sub(r"(^|/)right(?=/|$)", r"\1left", name)
        if form != DSEC or other == name or other not in formats:
            left.append(name)
    if left != names:
        text = f"{len(names) - len(left)}, of scenes whose left camera is used"
        return left, {"right_cameras": text}
    has_one = len(names) == 1 or set(formats.values()) != {MVSEC}
    return splits.choose(names, (), None if has_one else settings.mvsec_sequence)


def facts(recordings: Sequence[EventRecording]) -> dict[str, Any]:
    """What a user should know of the recordings."""
    first = recordings[0]
    lengths = window_lengths(recordings)
    count = 0
    seconds = 0.0
    for recording in recordings:
        count += len(recording.all_events)
        seconds += float(np.ptp(recording.windows)) / recording.second
    return {
        "sensor": f"{shape(first.sensor)} (from {first.sensor_source})",
        "events": f"{count:,} in {len(recordings)} recordings of {seconds:.3g} s",
        "windows": f"{1e3 * np.median(lengths):.3g} ms, {len(lengths)} windows",
        "time_unit": "s, by the format" if first.second == 1 else "µs, by the format",
        "labels": "; ".join(sorted({recording.labels for recording in recordings})[:3]),
    }


def window_lengths(recordings: Sequence[EventRecording]) -> ndarray:
    """The length of each window, in seconds."""
    return np.concatenate([np.diff(each.windows)[:, 0] / each.second for each in recordings])
