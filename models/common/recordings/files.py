"""One function opens a recording, in training and in use; MNE reads most formats."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, inf
from pathlib import Path
from typing import Any

from models.common.data_files import identity, listed, unreadable_file
from models.common.recordings import edf
from models.common.recordings.recording import (
    STIM,
    Channel,
    Event,
    Recording,
    RecordingPiece,
    recording_errors,
)

_BRAINVISION = (".vhdr", ".ahdr")
_WIDTHS = {"short": 2, "int": 4, "single": 4}
"""Bytes of a value in the files of samples of BrainVision."""
_SPLITS = ("boundary", "bad boundary", "edge boundary", "new segment")
"""Begins of the annotations where a recording was paused or a part was cut out."""
_SKIP = "bad_acq_skip"
"""The annotation of MNE for samples that were not recorded."""


def open_recording(path: Path, unit: str | None = None) -> Recording:
    """The recording at `path`, a file or a folder of its format; the last few are cached.

    `unit`: of channels of EDF and BDF that name none, which without it are not read.

    Rates, gaps, units and encodings are those of its header; warnings of libraries are its notes.
    Reads the disk, but no samples. Raises DataError.
    """
    try:
        return _opened(path, identity(path), unit)
    except OSError as error:
        raise unreadable_file(path, error) from None


@lru_cache(maxsize=8)
def _opened(path: Path, as_it_is: tuple[int, ...], unit: str | None) -> Recording:
    """Cached by the identity of the file. Raises DataError, OSError."""
    is_edf = path.suffix.lower() in edf.SUFFIXES
    channels = edf.read_channels(path, unit) if is_edf else []
    with recording_errors(path) as notes:
        raw, note = _raw(path)
        _check_length(raw, path)
        rate = float(raw.info["sfreq"])
        if not (0 < rate < inf and raw.n_times):
            raise ValueError(f"{raw.n_times} samples at {rate:g} Hz")
        if not channels:
            is_gdf = path.suffix.lower() == ".gdf"  # the one other format of channels with several rates
            counts = raw._raw_extras[0]["n_samps"] if is_gdf else [1] * len(raw.ch_names)
            for kind, count in zip(raw.get_channel_types(), counts, strict=True):
                channels.append(Channel("", kind, rate * count / max(counts), 1.0 if kind == STIM else 1e6))
        for channel, name in zip(channels, raw.ch_names, strict=True):
            channel.name, channel.is_bad = name, name in raw.info["bads"]
            if not abs(channel.rate_hz - rate) < 1e-5 * rate:
                read = f"and only those at {rate:g} Hz can be read"
                channel.problem = f"is sampled at {channel.rate_hz:g} Hz, {read}"
        events = _events(raw)
        pieces = _pieces(events, rate, int(raw.n_times))
        raw[0, :1]  # a missing file of data is an error now
    if unknown := [channel.name for channel in channels if channel.problem == edf.NO_UNIT]:
        notes.append(f"{len(unknown)} channels name no unit and are not read: {listed(unknown, 3)}")
    annotations = [replace(e, onset_s=round(e.onset_s * rate) / rate) for e in events]
    named = tuple(f"{path.name}: {text}" for text in (note, *notes) if text)
    return Recording(path, raw, rate, channels, pieces, annotations, named)


def _raw(path: Path) -> tuple[Any, str]:
    """The recording of MNE, and a note."""
    import mne

    suffix, options = path.suffix.lower(), {"preload": False, "verbose": "warning"}
    if suffix == ".ahdr":  # older versions of MNE do not know it
        return mne.io.read_raw_brainvision(str(path), **options), ""
    if path.name.lower().endswith((".fif", ".fif.gz")):
        _check_tags(path)
    try:
        return mne.io.read_raw(str(path), **options), ""
    except Exception as error:
        if suffix in edf.SUFFIXES and "encoding='latin1'" in str(error):  # as MNE says
            raw = mne.io.read_raw(str(path), encoding="cp1252", **options)
            return raw, "its annotations are read as cp1252"
        raise


def _check_tags(path: Path) -> None:
    """Raise ValueError if the tags of a FIF file name each other in a circle: MNE never ends then.

    Source: the header of a tag in Functional image file format, Elekta Neuromag, 2009.
    """
    at, seen = 0, set[int]()
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        while at >= 0:
            if at in seen:
                raise ValueError(f"its tag at byte {at:,} follows itself")
            seen.add(at)
            file.seek(at)
            if len(head := file.read(16)) < 16:
                return
            size, following = struct.unpack(">8xii", head)
            at = following or at + 16 + size


def _events(raw: Any) -> list[Event]:
    """The annotations; onsets are seconds after the first sample."""
    notes = raw.annotations
    begin = 0.0 if notes.orig_time is None else raw.first_samp / float(raw.info["sfreq"])
    if notes.orig_time is not None and raw.info["meas_date"] is not None:
        begin += (raw.info["meas_date"] - notes.orig_time).total_seconds()
    rows = zip(notes.onset, notes.duration, notes.description, strict=True)
    return [Event(float(onset) - begin, float(lasts), str(name)) for onset, lasts, name in rows]


def _pieces(events: Sequence[Event], rate: float, end: int) -> tuple[RecordingPiece, ...]:
    """The parts between pauses; without samples that were not recorded."""
    skipped: list[tuple[int, int]] = []
    for event in events:
        # EEGLAB places a pause between two samples.
        first, kind = ceil(event.onset_s * rate - 1e-6), event.name.lower()
        if kind == _SKIP:
            last = round((event.onset_s + event.duration_s) * rate)
            skipped.append((round(event.onset_s * rate), last))
        elif kind.startswith(_SPLITS) and 0 < first < end:
            skipped.append((first, first))
    pieces, begin = [], 0
    for first, last in [*sorted(skipped), (end, end)]:
        if first > begin:
            pieces.append(RecordingPiece(begin / rate, (first - begin) / rate))
        begin = max(begin, last)
    return tuple(pieces) or (RecordingPiece(0.0, end / rate),)


def _check_length(raw: Any, path: Path) -> None:
    """Raise ValueError if a file of samples has another length than its header says.

    MNE drops a sample of BrainVision that is cut, and reads another .fdt file beside a .set file.
    """
    header = path.read_bytes().upper() if path.suffix.lower() in _BRAINVISION else b""
    points = re.search(rb"^DATAPOINTS=([1-9]\d*)", header, re.MULTILINE)
    samples = int(points[1]) if points else raw.n_times
    for name in map(Path, filter(None, raw.filenames)):
        is_binary = header and b"DATAFORMAT=ASCII" not in header
        width = 4 if name.suffix.lower() == ".fdt" else _WIDTHS[raw.orig_format] if is_binary else 0
        expected, size = width * len(raw.ch_names) * samples, name.stat().st_size
        if width and size != expected:
            raise ValueError(f"'{name.name}' has {size} bytes, and by its header {expected}")
