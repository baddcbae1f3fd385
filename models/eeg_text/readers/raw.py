"""EDF, BDF and EEGLAB recordings, opened by MNE and read piece by piece."""

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
"""Below, there is nothing of 50 Hz in a recording."""
MARGIN_S = 6.0
"""Read on both sides of a piece, and cut away again: filters of 0.5 Hz ring for seconds."""
_MICROVOLTS = 1e6
_HEAD = 256
_FAULTS = (OSError, ValueError, RuntimeError, TypeError, KeyError, IndexError, AssertionError)
"""What MNE raises of a file that is cut short or garbled."""


def opened(path: Path) -> Any:
    """MNE's Raw of a recording, of which nothing is read yet; the last few are remembered.

    Touches disk. Raises DataError.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return _opened(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _opened(path: Path, size: int, changed: int) -> Any:
    """Of a file as it was: of another `size`, or `changed` since, it is another one."""
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
            f"'{path.name}' was recorded at {rate:g} Hz, too slowly for waves of {HIGH_HZ:g} Hz",
            where=str(path),
            allowed=f"{LOWEST_RATE_HZ} Hz and more",
        )
    return raw


def piece(path: Path, picks: list[int], start_s: float, samples: int, line_hz: int) -> np.ndarray:
    """Microvolts [time, channel] of `picks` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads the piece and its margins, and no more. Raises
    DataError.
    """
    from scipy.signal import resample_poly

    raw = opened(path)
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
    """Whether all numbers of each second are numbers, bool; read a minute at a time.

    Touches disk. Raises DataError.
    """
    raw = opened(path)
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
            # MNE reads channels in their order.
            order = np.argsort(picks)
            found = raw[np.asarray(picks)[order], first:last][0]
    except _FAULTS as error:
        raise _unreadable(path, error) from None
    volts = np.empty_like(found)
    volts[order] = found
    return volts


def _filtered(eeg: np.ndarray, rate: float, line_hz: int) -> np.ndarray:
    """Band-pass and notch, forth and back, so that nothing is shifted in time."""
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(eeg.shape[1] - 1, int(3 * rate))
    eeg = sosfiltfilt(band, eeg, axis=1, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        eeg = filtfilt(*iirnotch(line_hz, 30, fs=rate), eeg, axis=1, padlen=pad)
    return eeg


def _check_length(path: Path, width: int) -> None:
    """Raises DataError where an EDF or BDF is shorter than its header tells.

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
    found = path.stat().st_size
    if records >= 0 and found < expected:  # -1: not known while it was written
        raise DataError(
            f"'{path.name}' is cut short: {found} of {expected} bytes are there",
            where=str(path),
            allowed="a whole recording",
        )


def _check_data_file(raw: Any, path: Path) -> None:
    """Raises DataError where the .fdt of a .set is shorter than it tells."""
    for name in raw.filenames:
        if name is None or Path(name).suffix.lower() != ".fdt":
            continue
        expected = 4 * len(raw.ch_names) * raw.n_times
        found = Path(name).stat().st_size
        if found < expected:
            raise DataError(
                f"'{Path(name).name}' is cut short: {found} of {expected} bytes are there",
                where=str(path),
                allowed="a whole recording",
            )


def _unreadable(path: Path, error: Exception) -> DataError:
    first = str(error).strip().split("\n")[0] or type(error).__name__
    return DataError(
        f"'{path.name}' cannot be read: {first}",
        where=str(path),
        allowed="a continuous EDF, BDF or EEGLAB recording",
    )
