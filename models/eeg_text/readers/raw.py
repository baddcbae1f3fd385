"""EEG of continuous recordings, filtered and read segment by segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.recordings.files import open_recording
from models.common.recordings.recording import Recording, RecordingPiece
from models.eeg_text.recordings import MOST_UV, RATE_HZ

LOW_HZ, HIGH_HZ = 0.5, 50.0
LOWEST_RATE_HZ = 110
"""Lowest sampling rate that contains 50 Hz."""
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""


def eeg_channels(path: Path) -> list[int]:
    """Indices of the channels of EEG that are not marked bad, each at its own rate. Reads the disk.

    Raises DataError if there are none, or if all are too slow.
    """
    recording = open_recording(path)
    eeg = [n for n, c in enumerate(recording.channels) if c.kind == "eeg" and not c.is_bad]
    if not eeg:
        kinds = [channel.kind for channel in recording.channels]
        counts = ", ".join(f"{kinds.count(name)} {name}" for name in dict.fromkeys(kinds))
        raise DataError(
            f"'{path.name}' has no EEG channel",
            where=str(path),
            allowed=f"channels of type eeg that are not marked bad; it has {counts}",
            fix="name channels yourself:  --set data.channels=FILE",
        )
    usable = [n for n in eeg if not recording.channels[n].problem]
    if not usable:
        channel = recording.channels[eeg[0]]
        raise DataError(
            f"no EEG channel of '{path.name}' can be used: '{channel.name}' {channel.problem}",
            where=str(path),
            allowed="EEG in volts, with a scale",
            fix="export it again from the program that recorded it",
        )
    fast = [n for n in usable if recording.channels[n].rate_hz >= LOWEST_RATE_HZ]
    if not fast:
        raise _too_slow(recording, usable[0])
    return fast


def check_channels(recording: Recording, picks: Sequence[int]) -> None:
    """Raise DataError if one of the channels is too slow for EEG, or not in microvolts."""
    recording.check(picks)
    slow = [pick for pick in picks if recording.channels[pick].rate_hz < LOWEST_RATE_HZ]
    if slow:
        raise _too_slow(recording, slow[0])


def _too_slow(recording: Recording, pick: int) -> DataError:
    channel, path = recording.channels[pick], recording.path
    return DataError(
        f"channel '{channel.name}' of '{path.name}' is sampled at {channel.rate_hz:g} Hz, too low "
        f"for EEG up to {HIGH_HZ:g} Hz",
        where=str(path),
        allowed=f"at least {LOWEST_RATE_HZ} Hz",
        fix="use channels with a higher rate:  --set data.channels=FILE",
    )


def read_segment(
    path: Path, picks: list[int], start_s: float, samples: int, line_hz: int
) -> np.ndarray:
    """Microvolts [time, channel] of `picks` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins, up to the next
    gap, each channel at its own rate. Raises DataError.
    """
    recording = open_recording(path)
    piece = recording.piece(start_s, start_s + samples / RATE_HZ)
    if piece is None:
        raise DataError(
            f"'{path.name}' has no {samples / RATE_HZ:g} s from {start_s:g} s on without a gap",
            where=str(path),
            allowed="what setup found",
        )
    eeg = np.empty((samples, len(picks)), dtype=np.float32)
    for _, rows in _by_rate(recording, picks):
        of_rate = [picks[row] for row in rows]
        eeg[:, rows] = _segment(recording, piece, of_rate, (start_s, samples), line_hz)
    return eeg


def _by_rate(recording: Recording, picks: Sequence[int]) -> Iterator[tuple[float, list[int]]]:
    """Each sampling rate, and the places in `picks` of the channels that have it."""
    rates = [recording.channels[pick].rate_hz for pick in picks]
    for rate in dict.fromkeys(rates):
        yield rate, [row for row, channel_rate in enumerate(rates) if channel_rate == rate]


def _segment(
    recording: Recording,
    piece: RecordingPiece,
    picks: list[int],
    span: tuple[float, int],
    line_hz: int,
) -> np.ndarray:
    """Microvolts [time, channel] of channels of one rate; `span`: start and samples at 500 Hz."""
    from scipy.signal import resample_poly

    (start_s, samples), rate = span, recording.rate_of(picks)
    begin, end = piece.bounds(rate)
    first = max(begin, piece.sample(start_s - MARGIN_S, rate))
    last = min(end, piece.sample(start_s + samples / RATE_HZ + MARGIN_S, rate))
    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
    eeg = _filtered(recording.read(picks, first, last), rate, line_hz)
    eeg = resample_poly(eeg, ratio.numerator, ratio.denominator, axis=1)
    skipped = round((piece.stored_s + start_s - piece.start_s - first / rate) * RATE_HZ)
    cut = eeg[:, max(0, skipped) :][:, :samples].T
    return np.pad(cut, ((0, samples - len(cut)), (0, 0)), mode="edge")  # of rounding, at an end


def possible_seconds(path: Path, picks: list[int]) -> np.ndarray:
    """Whether all values of each stored second are at most 1 V, bool; reads a minute at a time.

    Reads the disk. Raises DataError.
    """
    recording = open_recording(path)
    last = recording.pieces[-1]
    possible = np.ones(int(np.ceil(last.stored_s + last.seconds)), dtype=bool)
    for rate, rows in _by_rate(recording, picks):
        for _, first, end in recording.parts(rate):
            values = np.abs(recording.read([picks[row] for row in rows], first, end))
            bad = np.flatnonzero(~(values <= MOST_UV).all(axis=0))  # also where NaN
            possible[((first + bad) / rate).astype(int)] = False
    return possible


def _filtered(eeg: np.ndarray, rate: float, line_hz: int) -> np.ndarray:
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(eeg.shape[1] - 1, int(3 * rate))
    eeg = sosfiltfilt(band, eeg, axis=1, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        eeg = filtfilt(*iirnotch(line_hz, 30, fs=rate), eeg, axis=1, padlen=pad)
    return eeg
