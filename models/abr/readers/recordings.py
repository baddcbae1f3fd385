"""Recordings: sweeps after stimuli, averaged to responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from gearshift.models.abr.responses import (
    ResponseOrigin,
    ResponseReading,
    ResponseRow,
    Signal,
    resample,
)
from gearshift.models.base import DataError
from gearshift.models.common.data_reports import MissingPackage
from gearshift.models.common.recordings import bids
from gearshift.models.common.recordings.files import open_recording
from gearshift.models.common.recordings.recording import Event, Recording

Values = NDArray[np.float64]
BAND_HZ = (100.0, 3000.0)
WINDOW_MS = 10.0
ORIGIN = ResponseOrigin(
    "recordings",
    "human",
    WINDOW_MS,
    "µV, from the calibration in the file",
    "subject, sub-… of the file name, or file",
)
PAD_S = 0.1
"""Margin of the filter: ten periods of the lowest passed frequency."""
CHUNK = 500
"""Sweeps that are read at once."""
_PADLEN = 15
"""Samples that the filter adds at both ends, unless there are fewer."""
_LEVEL = re.compile(r"(-?\d+(?:\.\d+)?)\s*dB", re.IGNORECASE)
_NO_STIMULUS = ("boundary", "bad", "edge", "new segment")


def read(
    path: Path,
    name: str,
    reading: ResponseReading,
) -> Iterator[ResponseRow]:
    """A row for each stimulus and every `data.sweeps` of its sweeps. Reads the disk.

    The group is the subject that BIDS names, or else `name`, the file in its folder. Problems are
    added to the bad records; sweeps that are left out are counted.
    """
    try:
        recording = open_recording(path, reading.settings.unit, reading.settings.channel)
        channel = _channel(recording, reading.settings.channel)
        recording.check([channel])
        kinds = _stimuli(recording, reading)
        reading.notes += recording.notes
        if not kinds:
            reading.bad_records.add(
                name,
                "no annotation that could be a stimulus",
                "name its stimuli in  NAME_events.tsv  of BIDS beside it",
            )
        group = bids.subject(path) or name
        every = np.unique(np.concatenate([*kinds.values(), []]))
        for kind, onsets in kinds.items():
            level = _LEVEL.search(kind)
            known = {"rate": _rate(onsets, every), "level": float(level[1]) if level else np.nan}
            responses = list(_averages(recording, channel, onsets, reading))
            for number, (points, quality) in enumerate(responses, start=1):
                where = f"{name}, '{kind}', response {number}"
                yield ResponseRow(group, where, points, {**known, "fmp": quality})
            if not responses:
                reading.bad_records.add(
                    name,
                    f"'{kind}' has fewer than data.sweeps sweeps within data.reject_uv",
                    "average fewer, or accept larger ones",
                )
    except MissingPackage:
        raise  # no fault of this file
    except DataError as error:
        reading.bad_records.add(error.where or name, error.message, error.fix or error.hint)


def _rate(
    onsets: Values,
    every: Values,
) -> float:
    """The stimuli per second at `onsets`, of which `every` has those of all kinds.

    To the next stimulus, of any kind: in a train the names of events may alternate.
    """
    # The last stimulus has no next one.
    inside = np.searchsorted(every[:-1], onsets[onsets < every[-1]])
    return 1 / float(np.median(np.diff(every)[inside])) if len(inside) else np.nan


def _averages(
    recording: Recording,
    channel: int,
    onsets: Values,
    reading: ResponseReading,
) -> Iterator[tuple[Signal, float]]:
    """The response and the Fmp of every `data.sweeps` accepted sweeps after `onsets`."""
    settings = reading.settings
    samples = WINDOW_MS * recording.rate_hz / 1000
    accepted: list[Values] = []
    for sweep in _sweeps(recording, channel, onsets, reading):
        if np.abs(sweep).max() > settings.reject_uv:
            reading.left_out["rejected_sweeps"] += 1
            continue
        accepted.append(sweep)
        if len(accepted) == settings.sweeps:
            sweeps = np.stack(accepted)
            yield resample(sweeps.mean(0), samples), fmp(sweeps)
            accepted.clear()
    reading.left_out["leftover_sweeps"] += len(accepted)


def _channel(
    recording: Recording,
    setting: str | None,
) -> int:
    """The index of the channel `setting`, or of the first one of EEG.

    Raises DataError, also if the recording is too slow.
    """
    names = recording.names
    usable = [c for c in recording.channels if c.kind == "eeg" and not c.is_bad]
    eeg = [channel.name for channel in usable]
    name = setting or "".join(eeg[:1])
    is_known = name in names
    if is_known and recording.rate_hz > 2 * BAND_HZ[1]:
        return names.index(name)
    problem = f"is sampled at {recording.rate_hz:g} Hz" if is_known else "does not exist"
    others = recording.faster if is_known else get_close_matches(name, names, n=1, cutoff=0.0)
    raise DataError(
        f"the channel '{name}' {problem}",
        where=str(recording.path),
        allowed=f"one of {', '.join(names)}, with more than {2 * BAND_HZ[1]:g} Hz",
        fix=f"--set {quote(f'data.channel={others[0]}')}" if others else "",
    )


def _stimuli(
    recording: Recording,
    reading: ResponseReading,
) -> dict[str, Values]:
    """The onsets of each stimulus, in seconds by the clock, sorted.

    Those of the table of BIDS beside the recording come first; then its annotations and events.
    """
    rows: list[Event] = []
    beside = bids.events_path(recording.path)
    if beside is not None:
        rows = bids.read_events(beside, reading.bad_records, reading.notes)
    kinds: dict[str, list[float]] = {}
    for event in [event for event in rows if event.name] or recording.events():
        if not event.name.lower().startswith(_NO_STIMULUS):
            kinds.setdefault(event.name, []).append(event.onset_s)
    return {kind: np.sort(onsets) for kind, onsets in kinds.items()}


def _sweeps(
    recording: Recording,
    channel: int,
    onsets: Values,
    reading: ResponseReading,
) -> Iterator[Values]:
    """The band-passed window after each stimulus, in µV; the filter stops at gaps.

    Stimuli before the begin and after the end, or too close to it, are left out; those in a gap, or
    with a gap in their window, are counted. A part of the recording is in memory at a time.
    """
    from scipy.signal import butter, sosfiltfilt

    rate = recording.rate_hz
    band = butter(2, BAND_HZ, "bandpass", fs=rate, output="sos")
    pad = int(PAD_S * rate)
    length = int(np.ceil(WINDOW_MS * rate / 1000)) + 1
    every = np.round(onsets * rate).astype(np.int64)
    complete = 0
    for piece in recording.pieces:
        begin, end = piece.bounds(rate)
        starts = every[(every >= begin) & (every + length <= end)]
        complete += len(starts)
        for number in range(0, len(starts), CHUNK):
            part = starts[number : number + CHUNK]
            # With a margin for the filter, whose output is not valid near an end.
            first = max(begin, int(part[0]) - pad)
            last = min(int(part[-1]) + length + pad, end)
            (trace,) = recording.read([channel], first, last)
            trace = sosfiltfilt(band, trace, padlen=min(len(trace) - 1, _PADLEN))
            yield from trace[np.add.outer(part - first, np.arange(length))]
    # Those within the recording that no piece holds are in gaps.
    inside = (onsets >= 0) & (onsets <= recording.end_s - length / rate)
    reading.left_out["sweeps_at_gaps"] += max(0, int(inside.sum()) - complete)


def fmp(sweeps: Values) -> float:
    """Fmp: the variance of the average over time, divided by that of its residual noise.

    `sweeps` [sweep, time]. The noise is the variance between sweeps, averaged over time and divided
    by the number of sweeps. Without a response, Fmp is about 1. Source: Elberling and Don, Quality
    estimation of averaged auditory brainstem responses, 1984, whose Fsp uses a single point.
    """
    noise = sweeps.var(0, ddof=1).mean() / len(sweeps)
    return float(sweeps.mean(0).var() / noise) if noise > 0 else np.nan
