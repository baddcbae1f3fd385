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
from models.eeg_text.readers.channels import ChannelPicks
from models.eeg_text.recordings import MOST_UV, RATE_HZ

LOW_HZ, HIGH_HZ = 0.5, 50.0
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""


def read_segment(
    path: Path,
    placed: ChannelPicks,
    start_s: float,
    samples: int,
    within: tuple[float, float],
    line_hz: int,
    unit: str | None,
) -> np.ndarray:
    """Microvolts [time, 105] of `placed` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins, up to the next gap
    and `within` these seconds: no filter sees EEG of another split. Raises DataError.
    """
    from scipy.signal import resample_poly

    recording, end_s = open_recording(path, unit), start_s + samples / RATE_HZ
    piece = recording.piece(start_s, end_s)
    if piece is None:
        problem = f"has no {samples / RATE_HZ:g} s from {start_s:g} s on without a gap"
        allowed = "what setup found"
        raise DataError(f"'{path.name}' {problem}", where=str(path), allowed=allowed)
    rate, (begin, end) = recording.rate_hz, piece.bounds(recording.rate_hz)
    first = max(begin, round(max(start_s - MARGIN_S, within[0]) * rate))
    last = min(end, round(min(end_s + MARGIN_S, within[1]) * rate))
    values = _filtered(recording.read(placed.picks, first, last), rate, line_hz)
    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
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
