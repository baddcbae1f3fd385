"""Recordings of all formats, opened with MNE and read segment by segment."""

from __future__ import annotations

import configparser
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.eeg_text import formats
from models.eeg_text.recordings import MOST_UV, RATE_HZ

LOW_HZ, HIGH_HZ = 0.5, 50.0
LOWEST_RATE_HZ = 110
"""Lowest sampling rate that contains 50 Hz."""
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""
_MICROVOLTS = 1e6
_HEAD = 256
_PIECE_S = 60
"""Seconds of a recording that are in memory at once while it is read whole."""
_COMPOSITE = ("STI101", "STI 014")
"""Event channels that join the lines of the others in one number."""
_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(configparser.Error, struct.error, zlib.error),
)
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
    with _read_errors(path):
        if form == formats.OPENBCI:
            from models.eeg_text.readers.openbci import OpenBciRaw

            raw = OpenBciRaw(path)
        else:
            raw = mne.io.read_raw(str(path), preload=False, verbose="error")
    _check_data_file(raw, path)
    rate = float(raw.info["sfreq"])
    if rate < LOWEST_RATE_HZ:
        raise DataError(
            f"'{path.name}' is sampled at {rate:g} Hz, too low for EEG up to {HIGH_HZ:g} Hz",
            where=str(path),
            allowed=f"at least {LOWEST_RATE_HZ} Hz",
        )
    return raw


def eeg_channels(path: Path) -> list[int]:
    """Indices of the channels of type EEG that are not marked bad. Reads the disk.

    Raises DataError if there are none.
    """
    import mne

    raw = open_raw(path)
    found = mne.pick_types(raw.info, eeg=True, exclude="bads")
    if not len(found):
        types = raw.get_channel_types()
        counts = ", ".join(f"{types.count(name)} {name}" for name in dict.fromkeys(types))
        raise DataError(
            f"'{path.name}' has no EEG channel",
            where=str(path),
            allowed=f"channels of type eeg that are not marked bad; it has {counts}",
            fix="name channels yourself:  --set data.channels=FILE",
        )
    return [int(number) for number in found]


def later_parts(path: Path) -> list[Path]:
    """The other files of a recording that is split into several. Reads the disk."""
    names = [Path(name) for name in open_raw(path).filenames if name is not None]
    return [name for name in names if name.resolve() != path.resolve()]


def events(path: Path) -> list[tuple[float, float, str]]:
    """Onset and duration in seconds, and name, of each event, by onset.

    Annotations, and changes of event channels to a number above 0, which is the name; they have no
    duration, and the first sample is no change. Reads the disk, event channels a minute at a time.
    Raises DataError.
    """
    raw = open_raw(path)
    notes = raw.annotations
    # Relative to the first sample, whatever the origin of the annotations is.
    onsets = raw.time_as_index(notes.onset, use_rounding=True, origin=notes.orig_time)
    seconds = (onsets / float(raw.info["sfreq"])).tolist()
    found = list(zip(seconds, notes.duration.tolist(), map(str, notes.description), strict=True))
    stim = [n for n, kind in enumerate(raw.get_channel_types()) if kind == "stim"]
    joined = [n for n in stim if raw.ch_names[n] in _COMPOSITE]
    for pick in joined[:1] or stim:
        found += _changes(raw, path, pick)
    return sorted(found)


def _changes(raw: Any, path: Path, pick: int) -> Iterator[tuple[float, float, str]]:
    """The events of an event channel."""
    rate, before = float(raw.info["sfreq"]), np.zeros(0)
    for first, last in _pieces(raw):
        values = _read(raw, path, [pick], first, last)[0]
        before = before if len(before) else values[:1]
        changed = np.flatnonzero((np.diff(values, prepend=before) != 0) & (values > 0))
        for sample in changed:
            yield (first + int(sample)) / rate, 0.0, f"{values[sample]:.0f}"
        before = values[-1:]


def _pieces(raw: Any) -> Iterator[tuple[int, int]]:
    """First sample and end of each piece."""
    length = round(_PIECE_S * float(raw.info["sfreq"]))
    for first in range(0, raw.n_times, length):
        yield first, min(raw.n_times, first + length)


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


def possible_seconds(path: Path, picks: list[int]) -> np.ndarray:
    """Whether all values of each second are at most 1 V, bool; reads a minute at a time.

    Reads the disk. Raises DataError.
    """
    raw = open_raw(path)
    rate = float(raw.info["sfreq"])
    seconds = int(np.ceil(raw.n_times / rate))
    possible = np.ones(seconds, dtype=bool)
    for first, last in _pieces(raw):
        volts = np.abs(_read(raw, path, picks, first, last))
        bad = np.flatnonzero(~(volts * _MICROVOLTS <= MOST_UV).all(axis=0))  # also where NaN
        possible[((first + bad) / rate).astype(int)] = False
    return possible


def _read(raw: Any, path: Path, picks: list[int], first: int, last: int) -> np.ndarray:
    order = np.argsort(picks)  # MNE reads channels in file order
    with _read_errors(path):
        found = raw[np.asarray(picks)[order], first:last][0]
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


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Raises what MNE raises as DataError, and silences its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _FAULTS as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    first = str(error).strip().split("\n")[0] or type(error).__name__
    package = re.search(r"the (?:module )?(\w+) (?:module )?is needed", first)
    return DataError(
        f"'{path.name}' cannot be read: {first}",
        where=str(path),
        allowed="a continuous, complete recording",
        fix=f"pip install {package[1]}" if package else "",
    )
