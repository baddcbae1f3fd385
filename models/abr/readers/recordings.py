"""EDF and EEGLAB recordings: sweeps after stimuli, averaged to responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.abr.responses import Origin, Row
from models.base import DataError
from models.common.data_files import BadRecords

if TYPE_CHECKING:
    from mne.io import BaseRaw
from models.abr.responses import resample

BAND_HZ = (100.0, 3000.0)
WINDOW_MS = 10.0
ORIGIN = Origin("recordings", "human", WINDOW_MS, "µV, from the calibration in the file")
PAD_S = 0.1
"""Margin of the filter: ten periods of the lowest passed frequency."""
CHUNK_S = 20.0
"""Seconds of a recording in memory at once."""
_LEVEL = re.compile(r"(-?\d+(?:\.\d+)?)\s*dB", re.IGNORECASE)
_NO_STIMULUS = ("boundary", "bad", "edge", "new segment")


@dataclass(frozen=True)
class Averaging:
    """How sweeps are averaged to a response."""

    sweeps: int
    reject_uv: float
    channel: str | None


class RecordingReader:
    """Rows of recordings; counts the sweeps that averaging left out."""

    def __init__(self, bad_records: BadRecords, averaging: Averaging) -> None:
        self.bad_records, self.averaging = bad_records, averaging
        self.rejected_sweeps = 0
        self.leftover_sweeps = 0
        """Accepted sweeps after the last complete response."""

    def read(self, path: Path, name: str) -> Iterator[Row]:
        """A row for each stimulus and every `sweeps` of its sweeps. Reads the disk.

        `name`, the file in its folder, is the group. Problems are added to the bad records.
        """
        try:
            raw = open_recording(path)
            channel = _channel(raw, self.averaging.channel, path)
            _check_rate(raw, path)
        except DataError as error:
            self.bad_records.add(error.where or name, error.message)
            return
        kinds = _stimuli(raw)
        if not kinds:
            self.bad_records.add(name, "no annotation that could be a stimulus")
        for kind, onsets in kinds.items():
            yield from self._responses(raw, channel, kind, onsets, name)

    def _responses(
        self, raw: BaseRaw, channel: str, kind: str, onsets: NDArray[np.float64], name: str
    ) -> Iterator[Row]:
        rate, found = raw.info["sfreq"], 0
        average = Average(rate, WINDOW_MS)
        level = float(m[1]) if (m := _LEVEL.search(kind)) else np.nan
        every = np.diff(np.sort(onsets))
        typical = float(np.median(every)) if len(every) else 0.0
        stimulus_rate = rate / typical if typical > 0 else np.nan
        for sweep in _sweeps(raw, channel, onsets):
            if np.abs(sweep).max() > self.averaging.reject_uv:
                self.rejected_sweeps += 1
                continue
            average.add(sweep)
            if average.sweeps == self.averaging.sweeps:
                found += 1
                where = f"{name}, '{kind}', response {found}"
                points, fmp = average.points(), average.fmp()
                yield Row(name, where, points, level=level, rate=stimulus_rate, fmp=fmp)
                average = Average(rate, WINDOW_MS)
        self.leftover_sweeps += average.sweeps
        if not found:
            self.bad_records.add(
                name,
                f"'{kind}' has {average.sweeps} sweeps within ±{self.averaging.reject_uv:g} µV; "
                f"a response needs data.sweeps={self.averaging.sweeps}",
            )


def open_recording(path: Path) -> BaseRaw:
    """The recording; reads only its header. Raises DataError."""
    import mne
    from scipy.io.matlab import MatReadError

    read = mne.io.read_raw_eeglab if path.suffix.lower() == ".set" else mne.io.read_raw_edf
    try:
        return read(path, preload=False, verbose="ERROR")
    # What mne and scipy raise for truncated or malformed files.
    except (MatReadError, ValueError, OSError, RuntimeError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot be read: {reason}", where=str(path)) from None


def _channel(raw: BaseRaw, wanted: str | None, path: Path) -> str:
    import mne

    if wanted is None:
        eeg = mne.pick_types(raw.info, eeg=True)
        if not len(eeg):
            raise DataError("no EEG channel", where=str(path))
        return str(raw.ch_names[eeg[0]])
    if wanted not in raw.ch_names:
        near = get_close_matches(wanted, raw.ch_names, n=1, cutoff=0.0)
        raise DataError(f"no channel '{wanted}'; did you mean '{near[0]}'", where=str(path))
    return wanted


def _check_rate(raw: BaseRaw, path: Path) -> None:
    if raw.info["sfreq"] <= 2 * BAND_HZ[1]:
        raise DataError(
            f"sampled at {raw.info['sfreq']:g} Hz; more than {2 * BAND_HZ[1]:g} Hz are required",
            where=str(path),
        )


def _stimuli(raw: BaseRaw) -> dict[str, NDArray[np.float64]]:
    """The onsets of each annotation text, in samples from the start, sorted."""
    kinds: dict[str, list[float]] = {}
    first = raw.first_samp / raw.info["sfreq"] if raw.annotations.orig_time else 0.0
    for onset, kind in zip(raw.annotations.onset, raw.annotations.description, strict=True):
        if not str(kind).lower().startswith(_NO_STIMULUS):
            kinds.setdefault(str(kind), []).append((onset - first) * raw.info["sfreq"])
    return {kind: np.sort(np.array(onsets)) for kind, onsets in kinds.items()}


def _sweeps(
    raw: BaseRaw, channel: str, onsets: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """The band-passed window after each onset, in µV; windows beyond the recording are left out.

    A few seconds of the recording are in memory at a time.
    """
    from scipy.signal import butter, sosfiltfilt

    rate = raw.info["sfreq"]
    band = butter(2, BAND_HZ, "bandpass", fs=rate, output="sos")
    pad, chunk = int(PAD_S * rate), int(CHUNK_S * rate)
    length = int(np.ceil(WINDOW_MS * rate / 1000)) + 1
    starts = np.round(onsets).astype(np.int64)
    starts = starts[(starts >= 0) & (starts + length <= raw.n_times)]
    while len(starts):
        first = max(0, int(starts[0]) - pad)
        last = min(first + chunk + pad, raw.n_times)
        settled = last if last == raw.n_times else last - pad  # end of valid filter output
        inside = starts[starts + length <= max(settled, starts[0] + length)]
        (trace,) = raw.get_data(picks=[channel], start=first, stop=last)
        trace = sosfiltfilt(band, trace * 1e6)
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
