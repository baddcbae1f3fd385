"""EEG of continuous recordings, filtered and read segment by segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    fast = [n for n in volts if recording.channels[n].rate_hz >= LOWEST_RATE_HZ]
    if not fast:
        check_channels(recording, volts or eeg)
    return fast


def check_channels(recording: Recording, picks: Sequence[int]) -> None:
    """Raise DataError if one of the channels is too slow for EEG, or not in microvolts."""
    recording.check(picks)
    for channel in (recording.channels[pick] for pick in picks):
        if channel.rate_hz < LOWEST_RATE_HZ:
            raise DataError(
                f"channel '{channel.name}' of '{recording.path.name}' is sampled at "
                f"{channel.rate_hz:g} Hz, too low for EEG up to {HIGH_HZ:g} Hz",
                where=str(recording.path),
                allowed=f"at least {LOWEST_RATE_HZ} Hz",
                fix="use channels with a higher rate:  --set data.channels=FILE",
            )


def read_segment(
    path: Path, placed: ChannelPicks, start_s: float, samples: int, line_hz: int, unit: str | None = None
) -> np.ndarray:
    """Microvolts [time, 105] of `placed` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins, up to the next
    gap, each channel at its own rate. Raises DataError.
    """
    from scipy.signal import resample_poly

    recording, end_s = open_recording(path, unit), start_s + samples / RATE_HZ
    piece = recording.piece(start_s, end_s)
    if piece is None:
        problem = f"has no {samples / RATE_HZ:g} s from {start_s:g} s on without a gap"
        allowed = "what setup found"
        raise DataError(f"'{path.name}' {problem}", where=str(path), allowed=allowed)
    eeg = np.zeros((samples, CHANNELS), dtype=np.float32)
    for rate, rows in _by_rate(recording, placed.picks):
        begin, end = piece.bounds(rate)
        first = max(begin, piece.sample(start_s - MARGIN_S, rate))
        last = min(end, piece.sample(end_s + MARGIN_S, rate))
        values = recording.read([placed.picks[row] for row in rows], first, last)
        ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
        values = _filtered(values, rate, line_hz)
        values = resample_poly(values, ratio.numerator, ratio.denominator, axis=1)
        skipped = round((piece.stored_s + start_s - piece.start_s - first / rate) * RATE_HZ)
        cut = values[:, max(0, skipped) :][:, :samples].T
        cut = np.pad(cut, ((0, samples - len(cut)), (0, 0)), mode="edge")  # of rounding, at an end
        eeg[:, [placed.slots[row] for row in rows]] = cut
    return eeg


def _by_rate(recording: Recording, picks: Sequence[int]) -> Iterator[tuple[float, list[int]]]:
    """Each sampling rate, and the places in `picks` of the channels that have it."""
    rates = [recording.channels[pick].rate_hz for pick in picks]
    for rate in dict.fromkeys(rates):
        yield rate, [row for row, channel_rate in enumerate(rates) if channel_rate == rate]


def _filtered(eeg: np.ndarray, rate: float, line_hz: int) -> np.ndarray:
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(eeg.shape[1] - 1, int(3 * rate))
    eeg = sosfiltfilt(band, eeg, axis=1, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        eeg = filtfilt(*iirnotch(line_hz, 30, fs=rate), eeg, axis=1, padlen=pad)
    return eeg


def possible_seconds(recording: Recording, picks: Sequence[int]) -> np.ndarray:
    """Whether all values of each stored second are at most 1 V, bool; reads a minute at a time.

    Reads the disk. Raises DataError.
    """
    last = recording.pieces[-1]
    possible = np.ones(int(np.ceil(last.stored_s + last.seconds)), dtype=bool)
    for rate, rows in _by_rate(recording, picks):
        for _, first, end in recording.parts(rate):
            values = np.abs(recording.read([picks[row] for row in rows], first, end))
            bad = np.flatnonzero(~(values <= MOST_UV).all(axis=0))  # also where NaN
            possible[((first + bad) / rate).astype(int)] = False
    return possible
