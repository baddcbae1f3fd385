"""One function opens a recording, in training and in use; MNE reads most formats."""

from __future__ import annotations

import gzip
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common.data_files import check_matlab5, identity, listed, unreadable_file
from models.common.recordings import edf
from models.common.recordings.recording import STIM, Channel, Event, Recording, RecordingPiece

SUFFIXES = (".vhdr", ".ahdr")
_WIDTHS = {"short": 2, "int": 4, "single": 4}
"""Bytes of a value in the files of samples of BrainVision."""
_MICROVOLTS = 1e6
_SPLITS = ("boundary", "bad boundary", "edge boundary", "new segment")
"""Begins of the annotations where a recording was paused or a part was cut out."""
_SKIP = "bad_acq_skip"
"""The annotation of MNE for samples that were not recorded."""


def _open(path: Path, unit: str | None, encoding: str = "utf8") -> Recording:
    """The recording in one of the formats of MNE. Raises DataError, OSError."""
    is_edf = path.suffix.lower() in edf.SUFFIXES
    signals = edf.read_signals(path, unit) if is_edf else []
    with caught(path) as notes:
        raw, note = _raw(path, encoding)
        files = tuple(Path(name) for name in raw.filenames if name is not None)
        _check_data_file(raw, path)
        rate = float(raw.info["sfreq"])
        if not (np.isfinite(rate) and rate > 0 and raw.n_times > 0):
            raise _error(path, f"{raw.n_times} samples at {rate:g} Hz")
        if not signals:
            rates = _own_rates(path, len(raw.ch_names)) or [rate] * len(raw.ch_names)
            signals = [
                edf.Signal(kind, r, 1.0 if kind == STIM else _MICROVOLTS, "")
                for kind, r in zip(raw.get_channel_types(), rates, strict=True)
            ]
        only, bads = f"and only those at {rate:g} Hz can be read", set(raw.info["bads"])
        channels = tuple(
            Channel(
                name,
                s.kind,
                name in bads,
                s.problem if np.isclose(s.rate_hz, rate) else f"is sampled at {s.rate_hz:g} Hz, {only}",
            )
            for name, s in zip(raw.ch_names, signals, strict=True)
        )
        events = _events(raw)
        pieces = _pieces(events, rate, int(raw.n_times))
        samples = _MneSamples(raw, path, signals).read
        samples([0], 0, 1)  # a missing file of data is an error now
    said = (*filter(None, [note]), *notes)
    if unknown := [channel.name for channel in channels if channel.problem == "names no unit"]:
        said += (f"{len(unknown)} channels name no unit and are not read: {listed(unknown, 3)}",)
    annotations = tuple(replace(e, onset_s=round(e.onset_s * rate) / rate) for e in events)
    return Recording(path, rate, channels, pieces, annotations, said, samples, is_edf, files)


_TRIGGER_BITS = 0xFFFF
"""The bits of the channel Status of BioSemi that are triggers; the others are its own state."""


class _MneSamples:
    def __init__(self, raw: Any, path: Path, signals: Sequence[edf.Signal]) -> None:
        self._raw, self._path = raw, path
        self._scales = np.array([signal.scale for signal in signals])
        self._is_stim = np.array([signal.kind == STIM for signal in signals])

    def read(self, picks: Sequence[int], first: int, last: int) -> np.ndarray:
        order = np.argsort(picks)  # MNE reads channels in file order
        with caught(self._path):
            samples = self._raw[np.asarray(picks)[order], first:last][0]
        values = np.empty_like(samples)
        values[order] = samples
        values *= self._scales[np.asarray(picks)][:, None]
        if self._path.suffix.lower() == ".bdf":
            stim = self._is_stim[np.asarray(picks)]
            values[stim] = values[stim].astype(np.int64) & _TRIGGER_BITS
        return values


def _raw(path: Path, encoding: str) -> tuple[Any, str]:
    import mne

    options: dict[str, Any] = {"preload": False, "verbose": "warning"}
    if path.suffix.lower() in SUFFIXES:
        return mne.io.read_raw_brainvision(str(path), **options), ""
    if path.suffix.lower() == ".set":
        check_matlab5(path)
    if path.name.lower().endswith((".fif", ".fif.gz")):
        _check_chain(path)
    if path.suffix.lower() in edf.SUFFIXES and encoding != "utf8":
        note = f"its annotations are read as {encoding}"
        return mne.io.read_raw(str(path), encoding=encoding, **options), note
    return mne.io.read_raw(str(path), **options), ""


def _check_chain(path: Path) -> None:
    """Raise DataError if the tags of a FIF file name each other in a circle: MNE never ends then.

    Source: the header of a tag in Functional image file format, Elekta Neuromag, 2009.
    """
    at, seen = 0, set[int]()
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        while at not in seen:
            seen.add(at)
            file.seek(at)
            if len(head := file.read(16)) < 16:
                return
            _, _, size, following = struct.unpack(">iIii", head)
            at = at + 16 + size if following == 0 else following
            if at < 0:
                return
    raise _error(path, f"its tag at byte {at:,} follows itself")


@contextmanager
def caught(path: Path) -> Iterator[list[str]]:
    """Raises any exception of MNE as a DataError about `path`; gives its warnings, each once.

    Nothing reaches the terminal. MNE and the libraries below it raise exceptions of many types for
    damaged files, also AssertionError and AttributeError, and the types change between versions:
    so all are caught, and the error names type and text.
    """
    from mne.utils import catch_logging

    notes: list[str] = []
    with warnings.catch_warnings(record=True) as shown, catch_logging():
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield notes
        except DataError:
            raise
        except Exception as error:
            raise _unreadable(path, error) from None
    notes += dict.fromkeys(_sentence(str(warning.message)) for warning in shown)


def _sentence(text: str) -> str:
    """The first line of a text, with single blanks."""
    return " ".join((text.strip().split("\n") or [""])[0].split())


def _own_rates(path: Path, channels: int) -> list[float] | None:
    """The rate of each channel of a GDF file by its header; None: all have that of the recording.

    Source: Schlögl, GDF: a general data format for biosignals, 2006, versions 1 and 2.
    """
    if path.suffix.lower() != ".gdf":
        return None
    with path.open("rb") as stream:
        head = stream.read(256)
        version = float(head[4:8])
        size = "<H" if version >= 1.9 else "<I"
        (count,) = struct.unpack_from(size, head, 252)
        numerator, denominator = struct.unpack_from("<II", head, 244)
        stream.seek(256 + 216 * count)
        counts = np.frombuffer(stream.read(4 * count), "<u4")
    if count != channels or len(set(counts.tolist())) == 1 or not numerator:
        return None
    return [float(number) * denominator / numerator for number in counts]


def _events(raw: Any) -> list[Event]:
    """The annotations; onsets are seconds after the first sample."""
    notes = raw.annotations
    begin = 0.0 if notes.orig_time is None else raw.first_samp / float(raw.info["sfreq"])
    if notes.orig_time is not None and raw.info["meas_date"] is not None:
        begin += (raw.info["meas_date"] - notes.orig_time).total_seconds()
    rows = zip(notes.onset, notes.duration, notes.description, strict=True)
    return [Event(float(onset) - begin, float(lasts), str(name)) for onset, lasts, name in rows]


def _pieces(events: Sequence[Event], rate: float, end: int) -> tuple[RecordingPiece, ...]:
    """The parts between pauses; without samples that were not recorded."""
    skipped: list[tuple[int, int]] = []
    for event in events:
        # EEGLAB places a pause between two samples.
        first, kind = ceil(event.onset_s * rate - 1e-6), event.name.lower()
        if kind == _SKIP:
            last = round((event.onset_s + event.duration_s) * rate)
            skipped.append((round(event.onset_s * rate), last))
        elif kind.startswith(_SPLITS) and 0 < first < end:
            skipped.append((first, first))
    pieces, begin = [], 0
    for first, last in [*sorted(skipped), (end, end)]:
        if first > begin:
            pieces.append(RecordingPiece(begin / rate, (first - begin) / rate))
        begin = max(begin, last)
    return tuple(pieces) or (RecordingPiece(0.0, end / rate),)


def _check_data_file(raw: Any, path: Path) -> None:
    """Raise DataError if a file of samples has another length than its header says.

    MNE drops a sample of BrainVision that is cut, and reads another .fdt file beside a .set file.
    """
    header = path.read_bytes().upper() if path.suffix.lower() in SUFFIXES else b""
    points = re.search(rb"^DATAPOINTS=([1-9]\d*)", header, re.MULTILINE)
    samples = int(points[1]) if points else raw.n_times
    for name in map(Path, filter(None, raw.filenames)):
        is_binary = header and b"DATAFORMAT=ASCII" not in header
        width = 4 if name.suffix.lower() == ".fdt" else _WIDTHS[raw.orig_format] if is_binary else 0
        expected, size = width * len(raw.ch_names) * samples, name.stat().st_size
        if width and size != expected:
            raise DataError(
                f"'{name.name}' has {size} bytes, and by its header {expected}",
                where=str(path),
                allowed="a complete recording",
                fix=f"copy '{name.name}' again, beside '{path.name}'",
            )


def _unreadable(path: Path, error: Exception) -> DataError:
    text = _sentence(str(error))
    package = re.search(r"the (?:module )?(\w+) (?:module )?is needed", text)
    fix = f"pip install {package[1]}" if package else ""
    if isinstance(error, FileNotFoundError) and error.filename:
        fix = f"copy '{Path(error.filename).name}' beside it"
    return _error(path, f"{text} ({type(error).__name__})", fix)


def _error(path: Path, problem: str, fix: str = "") -> DataError:
    return DataError(
        f"'{path.name}' cannot be read: {problem}",
        where=str(path),
        allowed="a continuous, complete recording",
        fix=fix or "copy it again, or export it again from the program that recorded it",
    )


def open_recording(path: Path, unit: str | None = None) -> Recording:
    """The recording at `path`, a file or a folder of its format; the last few are cached.

    `unit`: of channels of EDF and BDF that name none, which without it are not read.

    Rates, gaps, units and encodings are those of its header; warnings of libraries are its notes.
    Reads the disk, but no samples. Raises DataError.
    """
    try:
        return _opened(path, identity(path), unit)
    except OSError as error:
        raise unreadable_file(path, error) from None


@lru_cache(maxsize=8)
def _opened(path: Path, as_it_is: tuple[int, ...], unit: str | None) -> Recording:
    """Cached by the identity of the file. Raises OSError."""
    try:
        return _open(path, unit)
    except DataError as error:
        if "encoding='latin1'" not in error.message:  # as MNE says
            raise
        return _open(path, unit, "cp1252")


def notes_of(recording: Recording) -> list[str]:
    """Its notes with the name of the file."""
    return [f"{recording.path.name}: {note}" for note in recording.notes]


def later_parts(path: Path) -> list[Path]:
    """The other files of a recording that is split into several. Raises DataError."""
    return [name for name in open_recording(path).files if name.resolve() != path.resolve()]
