"""What MNE does not tell of an EDF or BDF file: gaps, length, and rates and units of channels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy import ndarray

from gearshift.models.common.recordings.recording import NO_UNIT, STIM, Channel

_BEGINS = {".edf": b"0       ", ".bdf": b"\xffBIOSEMI"}
SUFFIXES = tuple(_BEGINS)
_HEAD = 256
"""Bytes of the header, and of its part for each signal."""
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8)
"""Bytes of each field of a signal; the fields of all signals come one after the other."""
_MICROVOLTS = {"uv": 1.0, "µv": 1.0, "nv": 1e-3, "mv": 1e3, "v": 1e6}
_VOLTS_OF_MNE = {"uV": 1e-6, "µV": 1e-6, "mV": 1e-3}
"""The units that MNE converts; of others it gives the numbers."""
_STATUS = "STATUS"
_STIM = (_STATUS, "TRIGGER", "STI 014")
_OTHERS = re.compile(
    "([HV]?EOG|[LR]OC|E[CKR]G|EMG|M[CE]G|RESP|TEMP|S[AP]O2|LIGHT|SOUND|AUDIO|MIC|EVENT|PULSE|MARKER|HR)"
    "[LR0-9]*(?![0-9A-Z])"
)
"""First words of labels of what is not EEG: the standard texts of EDF+, and common ones."""
_START = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14")
"""The time of a record: the first annotation in it, which has no text."""


class _Signal(NamedTuple):
    """What a header says of a signal."""

    label: str
    unit: str
    limits: Sequence[str]
    """Least and largest value, in the unit, then as stored."""
    samples: int
    """In a record."""


def read_file(
    path: Path,
    unit: str | None,
) -> tuple[list[Channel], Sequence[float]]:
    """The channels of a file, and when the program of BioSemi went on after a pause, in seconds.

    Without the channels of annotations. `unit`: of channels that name none. Reads the disk. Raises
    ValueError for what MNE would read wrongly: gaps, and a file that is longer or shorter than its
    header says. Source: Kemp and Olivan, European data format 'plus' (EDF+), 2003; the page of
    BioSemi about BDF.
    """
    suffix = path.suffix.lower()
    is_bdf = suffix == ".bdf"
    width = 3 if is_bdf else 2
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if not head.startswith(_BEGINS[suffix]):
            raise ValueError(f"it does not begin as a {suffix} file")
        size = int(head[184:192])
        record_s = float(head[244:252])
        count = int(head[252:256])
        if size != _HEAD * (count + 1) or not record_s > 0:
            raise ValueError("its header is damaged")
        signals = _read_signals(file, count)
    record = width * sum(signal.samples for signal in signals)
    content = _records(path, size, int(head[236:244]), record)

    channels = []
    parts: dict[str, ndarray] = {}
    begin = 0
    for signal in signals:
        if signal.label[3:] != " Annotations":
            channels.append(_channel(signal, unit, signal.samples / record_s))
        end = begin + width * signal.samples
        parts.setdefault(signal.label.upper(), content[:, begin:end])
        begin = end
    fastest_hz = max((channel.rate_hz for channel in channels), default=0)
    if fastest_hz <= 0:
        raise ValueError("it has no signal, only annotations")

    nothing = content[:, :0]
    if head[192:197] in (b"EDF+D", b"BDF+D"):  # MNE would join records without a look at times
        notes = parts.get("BDF ANNOTATIONS" if is_bdf else "EDF ANNOTATIONS", nothing)
        _check_starts(notes, record_s, fastest_hz)
    status = parts.get(_STATUS, nothing)
    if not is_bdf or not status.size:
        return channels, []
    return channels, _epoch_starts(status, record_s)


def _read_signals(file: BinaryIO, count: int) -> list[_Signal]:
    """The second part of a header. Raises ValueError."""
    fields = [[_text(file.read(width)) for _ in range(count)] for width in _WIDTHS]
    signals = []
    for label, _, unit, *limits, _, samples in zip(*fields, strict=True):
        signals.append(_Signal(label, unit, limits, int(samples)))
    return signals


def _records(
    path: Path,
    begin: int,
    count: int,
    size: int,
) -> ndarray:
    """The `count` records [record, byte] of `size` bytes after the header, mapped from the disk.

    Raises ValueError if the file has another length.
    """
    length = path.stat().st_size
    expected = begin + max(1, count) * size
    is_complete = length == expected if count > 0 else length >= expected
    if not size or not is_complete:
        raise ValueError(f"it has {length} bytes, and by its header {expected}")
    records = (length - begin) // size
    return np.memmap(path, np.uint8, "r", begin, (records, size))


def _check_starts(
    notes: ndarray,
    record_s: float,
    rate_hz: float,
) -> None:
    """Raise ValueError if a record does not begin where the one before ends, up to half a sample.

    `notes` [record, byte]: the annotations, of which the first of a record is its start.
    """
    starts = np.full(len(notes), np.nan)
    for number, record in enumerate(notes):
        match = _START.match(record.tobytes())
        if match:
            starts[number] = float(match[1])
    gaps_s = np.diff(starts) - record_s
    is_next = np.abs(gaps_s) <= 0.5 / rate_hz  # not if NaN
    if not is_next.all():
        first = int(is_next.argmin())
        raise ValueError(
            f"it is a recording with gaps: records {first + 1} and {first + 2}, "
            f"of {record_s:g} s each, begin at {starts[first]:g} and {starts[first + 1]:g} s"
        )


def _epoch_starts(status: ndarray, record_s: float) -> list[float]:
    """When, in seconds after the first sample, a new epoch begins: bit 16 of `status` rises.

    `status` [record, byte]. Source: the page of BioSemi about the channel Status.
    """
    is_epoch = (status[:, 2::3] & 1).astype(np.int8)
    rises = np.flatnonzero(np.diff(is_epoch.ravel()) == 1) + 1
    return (rises * record_s / is_epoch.shape[1]).tolist()


def _channel(signal: _Signal, unit: str | None, rate_hz: float) -> Channel:
    """The channel of a signal; `unit`: if the header names none."""
    label, named, limits, _ = signal
    if label.upper() in _STIM:
        return Channel(label, STIM, rate_hz, 1.0)
    factor = _MICROVOLTS.get((named or unit or "").lower())
    is_unknown = named != "" and factor is None
    is_other = is_unknown or _OTHERS.match(label.upper())
    kind = "misc" if is_other else "eeg"
    try:
        low, high, lowest, highest = map(float, limits)
        has_scale = np.isfinite(high - low) and low != high and lowest < highest
    except ValueError:
        has_scale = False
    problem = ""
    if not has_scale:
        problem = f"has no scale: its range is {limits[0]} to {limits[1]}"
    elif factor is None:
        problem = f"is in {named}, not in volts" if named else NO_UNIT
    # MNE converts what the header names, not what the setting says of channels without a unit.
    scale = (factor or 1.0) / _VOLTS_OF_MNE.get(named, 1.0)
    return Channel(label, kind, rate_hz, scale, problem)


def _text(data: bytes) -> str:
    # The specification asks for ASCII; µ is the one byte of Latin-1, or the two of UTF-8.
    text = data.decode("utf-8", "replace")
    if "\ufffd" in text:
        text = data.decode("latin-1")
    return text.translate({0: " ", ord("μ"): "µ"}).strip()
