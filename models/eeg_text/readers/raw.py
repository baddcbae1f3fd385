"""EEG of continuous recordings, filtered and read segment by segment."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.recordings.files import open_recording
from models.common.recordings.recording import Recording
from models.eeg_text.config import CHANNELS
from models.eeg_text.readers.tables import ChannelPicks
from models.eeg_text.recordings import MOST_UV, RATE_HZ

LOW_HZ, HIGH_HZ = 0.5, 50.0
LOWEST_RATE_HZ = 110
"""Lowest sampling rate that contains 50 Hz."""
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""


def eeg_channels(recording: Recording) -> list[int]:
    """Indices of the usable channels of EEG that are not marked bad, each at its own rate.

    Raises DataError if there are none.
    """
    eeg = [n for n, c in enumerate(recording.channels) if c.kind == "eeg" and not c.is_bad]
    if not eeg:
        kinds = [channel.kind for channel in recording.channels]
        counts = ", ".join(f"{kinds.count(name)} {name}" for name in dict.fromkeys(kinds))
        raise DataError(
            f"'{recording.path.name}' has no EEG channel",
            where=str(recording.path),
            allowed=f"channels of type eeg that are not marked bad; it has {counts}",
            fix="name channels yourself:  --set data.channels=FILE",
        )
    volts = [n for n in eeg if not recording.channels[n].problem]
    check_channels(recording, volts or eeg)
    return volts


def check_channels(recording: Recording, picks: Sequence[int]) -> None:
    """Raise DataError if the recording is too slow for EEG, or a channel is not in microvolts."""
    recording.check(picks)
    if recording.rate_hz < LOWEST_RATE_HZ:
        raise DataError(
            f"'{recording.path.name}' is sampled at {recording.rate_hz:g} Hz",
            where=str(recording.path),
            allowed=f"at least {LOWEST_RATE_HZ} Hz, for EEG up to {HIGH_HZ:g} Hz",
        )


def read_segment(
    path: Path, placed: ChannelPicks, start_s: float, samples: int, line_hz: int, unit: str | None = None
) -> np.ndarray:
    """Microvolts [time, 105] of `placed` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins, up to the next
    gap. Raises DataError.
    """
    from scipy.signal import resample_poly

    recording, end_s = open_recording(path, unit), start_s + samples / RATE_HZ
    piece = recording.piece(start_s, end_s)
    if piece is None:
        problem = f"has no {samples / RATE_HZ:g} s from {start_s:g} s on without a gap"
        allowed = "what setup found"
        raise DataError(f"'{path.name}' {problem}", where=str(path), allowed=allowed)
    rate, (begin, end) = recording.rate_hz, piece.bounds(recording.rate_hz)
    first = max(begin, round((start_s - MARGIN_S) * rate))
    values = recording.read(placed.picks, first, min(end, round((end_s + MARGIN_S) * rate)))
    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
    values = _filtered(values, rate, line_hz)
    values = resample_poly(values, ratio.numerator, ratio.denominator, axis=1)
    skipped = round((start_s - first / rate) * RATE_HZ)
    cut = values[:, max(0, skipped) :][:, :samples].T
    eeg = np.zeros((samples, CHANNELS), dtype=np.float32)
    # Of rounding, at an end, a value may be missing.
    eeg[:, placed.slots] = np.pad(cut, ((0, samples - len(cut)), (0, 0)), mode="edge")
    return eeg


def _filtered(eeg: np.ndarray, rate: float, line_hz: int) -> np.ndarray:
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(eeg.shape[1] - 1, int(3 * rate))
    eeg = sosfiltfilt(band, eeg, axis=1, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        eeg = filtfilt(*iirnotch(line_hz, 30, fs=rate), eeg, axis=1, padlen=pad)
    return eeg


def check_values(recording: Recording, picks: Sequence[int]) -> None:
    """Raise DataError for a value that is not finite, or above 1 V; reads a minute at a time."""
    for first, end in recording.parts():
        values = np.abs(recording.read(picks, first, end))
        bad = np.flatnonzero(~(values <= MOST_UV).all(axis=0))  # also where NaN
        if len(bad):
            at = (first + int(bad[0])) / recording.rate_hz
            raise DataError(
                f"'{recording.path.name}' has a value at {at:.1f} s that is not finite or above 1 V",
                where=str(recording.path),
                allowed="finite values in volts",
                fix="check the unit of its channels, and export the recording again",
            )
