"""EDF, BDF and EEGLAB recordings, opened with MNE and read segment by segment."""

from __future__ import annotations

import warnings
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.eeg_text import formats
from models.eeg_text.recordings import RATE_HZ

LOW_HZ, HIGH_HZ = 0.5, 50.0
LOWEST_RATE_HZ = 110
"""Lowest sampling rate that contains 50 Hz."""
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""
_MICROVOLTS = 1e6
_HEAD = 256
_FAULTS = (OSError, ValueError, RuntimeError, TypeError, KeyError, IndexError, AssertionError)
"""What MNE raises for a truncated or corrupt file."""


def open_raw(path: Path) -> Any:
    """The MNE Raw of a recording, without its data; the last few are cached.

    Reads the disk. Raises DataError.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return _opened(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _opened(path: Path, size: int, changed: int) -> Any:
    """Cached by size and modification time."""
    import mne

    form = formats.of_file(path)
    if form in (formats.EDF, formats.BDF):
        _check_length(path, 2 if form == formats.EDF else 3)
    readers = {
        formats.EDF: mne.io.read_raw_edf,
        formats.BDF: mne.io.read_raw_bdf,
        formats.EEGLAB: mne.io.read_raw_eeglab,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = readers[form or ""](str(path), preload=False, verbose="error")
    except _FAULTS as error:
        raise _unreadable(path, error) from None
    _check_data_file(raw, path)
    rate = float(raw.info["sfreq"])
    if rate < LOWEST_RATE_HZ:
        raise DataError(
            f"'{path.name}' is sampled at {rate:g} Hz, too low for EEG up to {HIGH_HZ:g} Hz",
            where=str(path),
            allowed=f"at least {LOWEST_RATE_HZ} Hz",
        )
    return raw


def read_segment(
    path: Path, picks: list[int], start_s: float, samples: int, line_hz: int
) -> np.ndarray:
    """Microvolts [time, channel] of `picks` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins. Raises DataError.
    """
    from scipy.signal import resample_poly

    raw = open_raw(path)
    rate = float(raw.info["sfreq"])
    first = max(0, round((start_s - MARGIN_S) * rate))
    last = min(raw.n_times, round((start_s + samples / RATE_HZ + MARGIN_S) * rate))
    volts = _read(raw, path, picks, first, last)
    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
    eeg = _filtered(volts * _MICROVOLTS, rate, line_hz)
    eeg = resample_poly(eeg, ratio.numerator, ratio.denominator, axis=1)
    skipped = round((start_s - first / rate) * RATE_HZ)
    return np.ascontiguousarray(eeg[:, skipped : skipped + samples].T, dtype=np.float32)


def finite_seconds(path: Path, picks: list[int]) -> np.ndarray:
    """Whether all values of each second are finite, bool; reads a minute at a time.

    Reads the disk. Raises DataError.
    """
    raw = open_raw(path)
    rate = float(raw.info["sfreq"])
    seconds = int(np.ceil(raw.n_times / rate))
    finite = np.ones(seconds, dtype=bool)
    for begin in range(0, seconds, 60):
        first, last = round(begin * rate), min(raw.n_times, round((begin + 60) * rate))
        bad = np.flatnonzero(~np.isfinite(_read(raw, path, picks, first, last)).all(axis=0))
        finite[((first + bad) / rate).astype(int)] = False
    return finite


def _read(raw: Any, path: Path, picks: list[int], first: int, last: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # MNE reads channels in file order.
            order = np.argsort(picks)
            found = raw[np.asarray(picks)[order], first:last][0]
    except _FAULTS as error:
        raise _unreadable(path, error) from None
    volts = np.empty_like(found)
    volts[order] = found
    return volts


def _filtered(eeg: np.ndarray, rate: float, line_hz: int) -> np.ndarray:
    """Zero-phase band-pass and notch filters."""
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(eeg.shape[1] - 1, int(3 * rate))
    eeg = sosfiltfilt(band, eeg, axis=1, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        eeg = filtfilt(*iirnotch(line_hz, 30, fs=rate), eeg, axis=1, padlen=pad)
    return eeg


def _check_length(path: Path, width: int) -> None:
    """Raise DataError if an EDF or BDF file is shorter than its header says.

    Source: Kemp et al., A simple format for exchange of digitized polygraphic recordings, 1992.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
            signals = int(head[252:256])
            fields = stream.read(_HEAD * signals)
        records = int(head[236:244])
        counts = fields[216 * signals : 224 * signals]
        samples = sum(int(counts[8 * i : 8 * i + 8]) for i in range(signals))
        expected = int(head[184:192]) + records * samples * width
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if records >= 0:  # -1: unknown while recording
        _check_bytes(path, expected, path)


def _check_data_file(raw: Any, path: Path) -> None:
    """Raise DataError if the .fdt file of a .set file is too short."""
    for name in raw.filenames:
        if name is None or Path(name).suffix.lower() != ".fdt":
            continue
        _check_bytes(Path(name), 4 * len(raw.ch_names) * raw.n_times, path)


def _check_bytes(file: Path, expected: int, recording: Path) -> None:
    if (found := file.stat().st_size) < expected:
        raise DataError(
            f"'{file.name}' is truncated: {found} of {expected} bytes",
            where=str(recording),
            allowed="a complete recording",
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    first = str(error).strip().split("\n")[0] or type(error).__name__
    return DataError(
        f"'{path.name}' cannot be read: {first}",
        where=str(path),
        allowed="a continuous EDF, BDF or EEGLAB recording",
    )
