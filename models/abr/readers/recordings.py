"""Recordings: sweeps after stimuli, averaged to responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.abr import formats
from models.abr.responses import ResponseOrigin, ResponseRow, resample
from models.base import DataError
from models.common.data_files import BadRecords
from models.common.recordings import bids
from models.common.recordings.files import notes_of, open_recording
from models.common.recordings.recording import Event, Recording

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
CHUNK_S = 20.0
"""Seconds of a recording in memory at once."""
_PADLEN = 15
"""Samples that the filter adds at both ends, unless there are fewer."""
_LEVEL = re.compile(r"(-?\d+(?:\.\d+)?)\s*dB", re.IGNORECASE)
_NO_STIMULUS = ("boundary", "bad", "edge", "new segment")


@dataclass(frozen=True)
class Averaging:
    """How sweeps are averaged to a response."""

    sweeps: int
    reject_uv: float
    channel: str | None
    unit: str | None = None
    """Of channels whose file names none."""


class RecordingReader:
    """Rows of recordings; counts the sweeps that averaging left out."""

    format, origin = formats.RECORDING, ORIGIN

    def __init__(self, bad_records: BadRecords, averaging: Averaging) -> None:
        self.bad_records, self.averaging = bad_records, averaging
        self.notes: list[str] = []
        """What the user should know about how files were read."""
        self.rejected_sweeps = 0
        self.leftover_sweeps = 0
        """Accepted sweeps after the last complete response."""
        self.sweeps_at_gaps = 0
        """Stimuli in a gap of the recording, or with a gap in their window."""

    def read(self, path: Path, name: str) -> Iterator[ResponseRow]:
        """A row for each stimulus and every `sweeps` of its sweeps. Reads the disk.

        The group is the subject that BIDS names, or else `name`, the file in its folder. Problems
        are added to the bad records.
        """
        try:
            recording = open_recording(path, self.averaging.unit)
            channel = _channel(recording, self.averaging.channel)
            recording.check([channel])
            kinds = self._stimuli(recording)
            self.notes += notes_of(recording)
            if not kinds:
                fix = "name its stimuli in  NAME_events.tsv  of BIDS beside it"
                self.bad_records.add(name, "no annotation that could be a stimulus", fix)
            every = np.unique(np.concatenate([*kinds.values(), []]))
            for kind, onsets in kinds.items():
                # To the next stimulus, of any kind: in a train the names of events may alternate.
                following = np.searchsorted(every, onsets, "right")
                inside = following < len(every)
                intervals = every[following[inside]] - onsets[inside]
                rate = 1 / float(np.median(intervals)) if len(intervals) else np.nan
                yield from self._responses(recording, channel, kind, onsets, rate, name)
        except DataError as error:
            self.bad_records.add(error.where or name, error.message, error.fix)

    def _responses(
        self,
        recording: Recording,
        channel: int,
        kind: str,
        onsets: NDArray[np.float64],
        stimulus_rate: float,
        name: str,
    ) -> Iterator[ResponseRow]:
        group = bids.subject(recording.path) or name
        rate, count = recording.rate_hz, 0
        average = Average(rate, WINDOW_MS)
        level = float(m[1]) if (m := _LEVEL.search(kind)) else np.nan
        starts = self._starts(recording, rate, onsets)
        for sweep in _sweeps(recording, channel, starts):
            if np.abs(sweep).max() > self.averaging.reject_uv:
                self.rejected_sweeps += 1
                continue
            average.add(sweep)
            if average.sweeps == self.averaging.sweeps:
                count += 1
                where = f"{name}, '{kind}', response {count}"
                points, fmp = average.points(), average.fmp()
                yield ResponseRow(group, where, points, level=level, rate=stimulus_rate, fmp=fmp)
                average = Average(rate, WINDOW_MS)
        self.leftover_sweeps += average.sweeps
        if not count:
            self.bad_records.add(
                name,
                f"'{kind}' has {average.sweeps} sweeps within ±{self.averaging.reject_uv:g} µV; "
                f"a response needs data.sweeps={self.averaging.sweeps}",
                f"average fewer:  --set data.sweeps={average.sweeps}" if average.sweeps else "",
            )

    def _stimuli(self, recording: Recording) -> dict[str, NDArray[np.float64]]:
        """The onsets of each stimulus; those of the table of BIDS beside it come first."""
        beside = bids.events_path(recording.path)
        if beside is not None:
            table = bids.read_events(beside, self.bad_records)
            if table.column is not None:
                self.notes += table.notes
                return _stimuli([event for event in table.events if event.name])
        return _stimuli(recording.events())

    def _starts(
        self, recording: Recording, rate: float, onsets: NDArray[np.float64]
    ) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
        """Bounds of each piece of the recording, and the samples of the stimuli in it.

        Stimuli before the begin and after the end, or too close to it, are left out.
        """
        length, starts, inside = _length(rate), [], 0
        for piece in recording.pieces:
            begin, end = piece.bounds(rate)
            samples = np.round(onsets * rate).astype(np.int64)
            samples = samples[(samples >= begin) & (samples + length <= end)]
            inside += len(samples)
            starts.append(((begin, end), samples))
        last = recording.pieces[-1].end_s - length / rate
        self.sweeps_at_gaps += max(0, int(((onsets >= 0) & (onsets <= last)).sum()) - inside)
        return starts


def _length(rate: float) -> int:
    return int(np.ceil(WINDOW_MS * rate / 1000)) + 1


def _channel(recording: Recording, wanted: str | None) -> int:
    """The index of the channel `wanted`, or of the first one of EEG.

    Raises DataError, also if the recording is too slow.
    """
    names, where, channels = recording.names, str(recording.path), recording.channels
    eeg = [n for n, channel in enumerate(channels) if channel.kind == "eeg"]
    if wanted is None and not eeg:
        fix = f"name one:  --set data.channel={names[0]!r}"
        raise DataError(f"no EEG channel among: {', '.join(names)}", where=where, fix=fix)
    if wanted is not None and wanted not in names:
        closest = get_close_matches(wanted, names, n=1, cutoff=0.0)[0]
        problem = f"no channel '{wanted}'; did you mean '{closest}'"
        raise DataError(problem, where=where, fix=f"--set data.channel={closest!r}")
    if recording.rate_hz <= 2 * BAND_HZ[1]:
        raise DataError(
            f"'{recording.path.name}' is sampled at {recording.rate_hz:g} Hz",
            where=where,
            allowed=f"more than {2 * BAND_HZ[1]:g} Hz",
            fix="export it from the program that recorded it, without reducing the sampling rate",
        )
    return eeg[0] if wanted is None else names.index(wanted)


def _stimuli(events: list[Event]) -> dict[str, NDArray[np.float64]]:
    """The onsets of each text of an annotation or event, in seconds by the clock, sorted."""
    kinds: dict[str, list[float]] = {}
    for event in events:
        if not event.name.lower().startswith(_NO_STIMULUS):
            kinds.setdefault(event.name, []).append(event.onset_s)
    return {kind: np.sort(np.array(onsets)) for kind, onsets in kinds.items()}


def _sweeps(
    recording: Recording, channel: int, pieces: list[tuple[tuple[int, int], NDArray[np.int64]]]
) -> Iterator[NDArray[np.float64]]:
    """The band-passed window after each stimulus, in µV; the filter stops at gaps.

    `pieces`: see RecordingReader._starts. A few seconds of the recording are in memory at a time.
    """
    from scipy.signal import butter, sosfiltfilt

    rate = recording.rate_hz
    band = butter(2, BAND_HZ, "bandpass", fs=rate, output="sos")
    pad, chunk, length = int(PAD_S * rate), int(CHUNK_S * rate), _length(rate)
    for (begin, end), starts in pieces:
        while len(starts):
            first = max(begin, int(starts[0]) - pad)
            last = min(first + chunk + pad, end)
            settled = last if last == end else last - pad  # end of valid filter output
            inside = starts[starts + length <= max(settled, starts[0] + length)]
            (trace,) = recording.read([channel], first, last)
            trace = sosfiltfilt(band, trace, padlen=min(len(trace) - 1, _PADLEN))
            for start in inside:
                yield trace[start - first : start - first + length]
            starts = starts[len(inside) :]


class Average:
    """A running average: sums of sweeps and of their squares, without the sweeps."""

    def __init__(self, rate_hz: float, window_ms: float) -> None:
        self.sweeps = 0
        self._samples = window_ms * rate_hz / 1000
        self._sum = self._square = np.zeros(1)

    def add(self, sweep: NDArray[np.float64]) -> None:
        """Add a sweep [sample], in µV."""
        self.sweeps += 1
        self._sum = self._sum + sweep
        self._square = self._square + sweep**2

    def points(self) -> NDArray[np.float32]:
        """The averaged response, [200]."""
        return resample(self._sum / self.sweeps, self._samples)

    def fmp(self) -> float:
        """Fmp: the variance of the average over time, divided by that of its residual noise.

        The noise is the variance between sweeps, averaged over time and divided by the number of
        sweeps. Without a response, Fmp is about 1. Source: Elberling and Don, Quality estimation of
        averaged auditory brainstem responses, 1984, whose Fsp uses a single point.
        """
        mean = self._sum / self.sweeps
        noise = (self._square / self.sweeps - mean**2).mean() / max(1, self.sweeps - 1)
        return float(mean.var() / noise) if noise > 0 else float("nan")
