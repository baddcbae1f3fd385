"""One function opens a recording, in training and in use; MNE reads most formats."""

from __future__ import annotations

import gzip
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import ceil, inf, isclose
from pathlib import Path
from typing import Any

import numpy as np

from gearshift.models.common import hdf5, matlab
from gearshift.models.common.data_files import check_reader, identity, unreadable_file
from gearshift.models.common.data_reports import BadRecords, listed
from gearshift.models.common.recordings import bids, edf
from gearshift.models.common.recordings.recording import (
    NO_UNIT,
    STIM,
    Channel,
    Event,
    Recording,
    RecordingPiece,
    recording_errors,
)

_SPLITS = ("boundary", "bad boundary", "edge boundary", "new segment")
"""Begins of the annotations where a recording was paused or a part was cut out."""
_SAME_RATE = 1e-5
"""Relative difference of rates that count as equal."""
_SKIP = "bad_acq_skip"
"""The annotation of MNE for samples that were not recorded."""


def open_recording(path: Path, unit: str | None = None, channel: str | None = None) -> Recording:
    """The recording at `path`, a file or a folder of its format; the last few are cached.

    `unit`: of channels of EDF and BDF that name none, which without it are not read. `channel`: one
    whose rate is wanted; without it, the rate is that of most channels of EEG.

    Rates, gaps, units and encodings are those of its header; warnings of libraries are its notes.
    Reads the disk, but no samples of EEG. Raises DataError, also without MNE.
    """
    check_reader("mne", path)
    try:
        return _open(path, identity(path), unit, channel)
    except OSError as error:
        raise unreadable_file(path, error) from None


@lru_cache(maxsize=8)
def _open(
    path: Path,
    as_it_is: tuple[int, ...],
    unit: str | None,
    name_of_rate: str | None,
) -> Recording:
    """Cached by the identity of the file. Raises DataError, OSError."""
    is_edf = path.suffix.lower() in edf.SUFFIXES
    pauses_s: Sequence[float] = ()
    bad_rows = BadRecords()
    with recording_errors(path) as notes:
        if is_edf:
            channels, pauses_s = edf.read_file(path, unit)
        raw = _raw(path)
        _check_length(raw)
        if not is_edf:
            channels = _channels(raw, path)
        for channel, name in zip(channels, raw.ch_names, strict=True):
            channel.name = name
        # Of GDF, MNE keeps the highest rate also without the channel that has it.
        rate = _rate(channels, name_of_rate) if is_edf else float(raw.info["sfreq"])
        faster = [c.name for c in channels if c.rate_hz > rate * (1 + _SAME_RATE)]
        if faster:  # of several rates, MNE gives all channels the highest one
            raw = _raw(path, exclude=faster)
            channels = [channel for channel in channels if channel.name not in faster]
        is_rate = 0 < rate < inf and isclose(raw.info["sfreq"], rate, rel_tol=_SAME_RATE)
        if not is_rate or not raw.n_times:
            raise ValueError(f"{raw.n_times} samples at {rate:g} Hz")
        bads = {*raw.info["bads"], *bids.bad_channels(path, bad_rows)}
        for channel in channels:
            channel.is_bad = channel.name in bads
            if not isclose(channel.rate_hz, rate, rel_tol=_SAME_RATE):
                channel.problem = (
                    f"is sampled at {channel.rate_hz:g} Hz, "
                    f"and only those at {rate:g} Hz can be read"
                )
        events = _events(raw, path)
        pieces = _pieces(events, pauses_s, rate, int(raw.n_times))
        raw[0, :1]  # a missing file of data is an error now

    unknown = [channel.name for channel in channels if channel.problem == NO_UNIT]
    if unknown:
        notes.append(f"{len(unknown)} channels name no unit and are not read: {listed(unknown, 3)}")
    bad = [channel.name for channel in channels if channel.is_bad]
    if bad:
        notes.append(f"{len(bad)} channels are marked as bad: {listed(bad, 3)}")
    absent = sorted(bads.difference(bad, faster))
    if absent:
        notes.append(f"{len(absent)} channels marked as bad are not in it: {listed(absent, 3)}")
    notes += [f"{where}: {problem}" for where, problem in bad_rows.rows]
    if faster:
        notes.append(f"channels above {rate:g} Hz are not read: {listed(faster, 3)}")
    return Recording(
        path,
        raw,
        rate,
        channels,
        pieces,
        annotations=[
            replace(event, onset_s=round(event.onset_s * rate) / rate) for event in events
        ],
        notes=tuple(f"{path.name}: {text}" for text in notes),
        faster=faster,
    )


def _channels(raw: Any, path: Path) -> list[Channel]:
    """The channels of a format other than EDF and BDF."""
    counts = [1] * len(raw.ch_names)
    if path.suffix.lower() == ".gdf":  # the one other format of channels with several rates
        counts = raw._raw_extras[0]["n_samps"]
    channels = []
    for kind, count in zip(raw.get_channel_types(), counts, strict=True):
        rate_hz = float(raw.info["sfreq"]) * count / max(counts)
        channels.append(Channel("", kind, rate_hz, 1.0 if kind == STIM else 1e6))
    return channels


def _rate(channels: Sequence[Channel], name_of_rate: str | None) -> float:
    """The rate of the channel `wanted`, or else that of most channels of EEG in volts."""
    for channel in channels:
        if channel.name == name_of_rate:
            return channel.rate_hz
    eeg = [channel for channel in channels if channel.kind == "eeg" and not channel.problem]
    counts = Counter(channel.rate_hz for channel in eeg or channels)
    return max(counts, key=lambda rate: (counts[rate], rate))


def _raw(path: Path, exclude: Sequence[str] = ()) -> Any:
    """The recording of MNE, without channels to exclude."""
    import mne

    suffix = path.suffix.lower()
    if path.name.lower().endswith((".fif", ".fif.gz")):
        _check_tags(path)
    if suffix == ".set":
        matlab.check(path)
        hdf5.check(path)
        if hdf5.is_hdf5(path):  # saved by MATLAB with -v7.3
            check_reader("pymatreader", path, "pip install pymatreader")
    options: dict[str, Any] = {"preload": False, "verbose": "warning"}
    if exclude:
        options["exclude"] = list(exclude)
        if suffix in edf.SUFFIXES:
            options["exclude_after_unique"] = True  # MNE numbers channels of one name
    try:
        return mne.io.read_raw(str(path), **options)
    except Exception as error:
        if suffix in edf.SUFFIXES and "encoding='latin1'" in str(error):  # as MNE says
            warnings.warn("its annotations are read as cp1252", stacklevel=2)  # a note
            return mne.io.read_raw(str(path), encoding="cp1252", **options)
        raise


def _check_tags(path: Path) -> None:
    """Raise ValueError if the tags of a FIF file name each other in a circle.

    MNE then reads until the memory is full; one of 20 random damages did that. Source: the header
    of a tag in Functional image file format, Elekta Neuromag, 2009.
    """
    at = 0
    visited: set[int] = set()
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        while at >= 0:
            if at in visited:
                raise ValueError(f"its tag at byte {at:,} follows itself")
            visited.add(at)
            file.seek(at)
            head = file.read(16)
            if len(head) < 16:
                return
            size, following = struct.unpack(">8xii", head)
            at = following or at + 16 + size


_PAUSES = ("-99", "-99.0")
"""Types of events for `boundary` where EEGLAB or ERPLAB stores numbers."""


def _events(raw: Any, path: Path) -> list[Event]:
    """The annotations; onsets are seconds after the first sample."""
    # MNE counts onsets from where the numbers of samples begin, with a date and without one.
    begin = raw.first_samp / float(raw.info["sfreq"])
    is_eeglab = path.suffix.lower() == ".set"
    events = []
    for note in raw.annotations:
        name = str(note["description"])
        if is_eeglab and name in _PAUSES:
            name = "boundary"
        duration_s = np.nan_to_num(note["duration"])  # of EEGLAB, an empty one is NaN
        events.append(Event(float(note["onset"]) - begin, float(duration_s), name))
    return events


def _pieces(
    events: Sequence[Event],
    pauses_s: Sequence[float],
    rate: float,
    end: int,
) -> list[RecordingPiece]:
    """The parts between pauses; without samples that were not recorded.

    `pauses_s`: when the recording went on after a pause that no event tells.
    """
    gaps = []
    for pause_s in pauses_s:
        at = round(pause_s * rate)
        gaps.append((at, at))
    for event in events:
        # EEGLAB places a pause between two samples.
        at = ceil(event.onset_s * rate - 1e-6)
        kind = event.name.lower()
        if kind == _SKIP:
            gaps.append((at, at + round(event.duration_s * rate)))
        elif kind.startswith(_SPLITS):
            gaps.append((at, at))

    pieces = []
    begin = 0
    for first, last in [*sorted(gaps), (end, end)]:
        stop = min(first, end)
        if stop > begin:
            pieces.append(RecordingPiece(begin / rate, (stop - begin) / rate))
        begin = max(begin, last)
    return pieces or [RecordingPiece(0.0, end / rate)]


def _check_length(raw: Any) -> None:
    """Raise ValueError if the .fdt file beside a .set file has another length than that says."""
    expected = 4 * len(raw.ch_names) * raw.n_times
    for file in map(Path, filter(None, raw.filenames)):
        size = file.stat().st_size
        if file.suffix.lower() == ".fdt" and size != expected:
            raise ValueError(f"'{file.name}' has {size} bytes, and by its header {expected}")
