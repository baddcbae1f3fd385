"""The recordings of the settings, and facts of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from gearshift.models.event_seg.formats import EMBEDDED, FORMATS, MVSEC, is_companion, recognize
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
    source = existing_path(path, allowed)
    known = known_files(source, recognize, FORMATS)
    names, facts = _choose({name: form for name, (_, form) in known.items()}, settings)
    # A copy under another name would be trained on and validate.
    copies = data_files.copies({name: known[name][0] for name in names})
    names = [name for name in names if name not in copies]
    bad_records = BadRecords("recordings")
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
    skipped = bad_records.finish(settings.on_bad, len(recordings))
    sensors = {shape(recording.sensor): recording.name for recording in recordings}
    if len(sensors) != 1:
        raise DataError(
            f"{len(recordings)} usable recordings have {len(sensors)} sensor sizes: {sensors}",
            where=f"data.path {path}",
            allowed="recordings of one sensor size",
            hint="use one folder per camera, or  --set 'data.sensor=[HEIGHT,WIDTH]'  for RAW files",
        )
    files = [file for file in data_files.files(source) if not is_companion(file)]
    formats = {recording.format.partition(" with ")[0] for recording in recordings}
    facts = {
        "format": ", ".join(sorted(formats)),
        **facts,
        **data_files.told_copies(copies),
        "ignored_files": len(files) - len(known),
        "skipped_recordings": skipped,
    }
    if skipped:
        facts["skipped"] = bad_records.examples()
    return recordings, facts


def _choose(
    formats: Mapping[str, str],
    settings: Data,
) -> tuple[list[str], dict[str, Any]]:
    """The names of the recordings to use, of those with `formats`, and facts of the choice."""
    if settings.sequences:
        return splits.choose(list(formats), settings.sequences)
    # Both cameras of a pair see the same scene: one would be trained on, the other validated.
    left = []
    for name in formats:
        other = re.sub(r"\bright/", "left/", name)
        if other == name or other not in formats:
            left.append(name)
    if len(left) < len(formats):
        text = f"{len(formats) - len(left)}, of scenes whose left camera is used"
        return left, {"right_cameras": text}
    has_sequences = len(left) > 1 and set(formats.values()) == {MVSEC}
    return splits.choose(left, (), settings.mvsec_sequence if has_sequences else None)


def facts(recordings: Sequence[EventRecording]) -> dict[str, Any]:
    """What a user should know of the recordings."""
    first = recordings[0]
    lengths = window_lengths(recordings)
    count = sum(len(recording.all_events) for recording in recordings)
    seconds = sum(float(np.ptp(each.windows)) / each.second for each in recordings)
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
