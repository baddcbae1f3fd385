"""What MNE does not tell of an EDF or BDF file: its gaps, its length, and rates and units of channels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gearshift.models.base import DataError
from gearshift.models.common.recordings.recording import NO_UNIT, STIM, Channel

SUFFIXES = (".edf", ".bdf")
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
    "[LR0-9]*"
)
"""First words of labels of what is not EEG: the standard texts of EDF+, and common ones."""
_START = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14")
"""The time of a record: the first annotation in it, which has no text."""


@dataclass(frozen=True)
class EdfFile:
    """What a header says, checked against the file."""

    channels: list[Channel]
    """Without those of annotations."""
    pauses_s: Sequence[float]
    """When the program of BioSemi went on after a pause."""


def read_file(path: Path, unit: str | None) -> EdfFile:
    """The channels and pauses of a file; `unit`: of channels that name none. Reads the disk.

    Raises DataError for what MNE would read wrongly: gaps, and a file that is longer or shorter than
    its header says. Source: Kemp and Olivan, European data format 'plus' (EDF+), 2003; the page of
    BioSemi about BDF.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            kind = (
                "BDF"
                if head.startswith(b"\xffBIOSEMI")
                else "EDF"
                if head.startswith(b"0       ")
                else ""
            )
            if path.suffix.lower() != f".{kind.lower()}":
                raise ValueError(f"it does not begin as a {path.suffix.lower()} file")
            size, records, count = (int(head[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
            seconds = float(head[244:252])
            if size != _HEAD * (count + 1) or not 0 < count < 10_000 or not 0 < seconds < 1e6:
                raise ValueError("its header is damaged")
            labels, _, units, *ranges, _, counts = (
                [_text(file.read(width)) for _ in range(count)] for width in _WIDTHS
            )
        width = 3 if kind == "BDF" else 2
        record = sum(map(int, counts)) * width
        length = path.stat().st_size
        expected = size + max(1, records) * record
        if not record or (
            length != expected if records > 0 else length < expected
        ):  # -1: not closed
            raise ValueError(f"it has {length} bytes, and by its header {expected}")
        rows = zip(labels, units, (int(n) / seconds for n in counts), *ranges, strict=True)
        channels = [_channel(*row, unit=unit) for row in rows if row[0][3:] != " Annotations"]
        fastest_hz = max((channel.rate_hz for channel in channels), default=0)
        if not fastest_hz > 0:
            raise ValueError("it has no signal, only annotations")

        content = np.memmap(path, np.uint8, "r", size, ((length - size) // record, record))
        ends = width * np.cumsum([int(n) for n in counts])
        parts: dict[str, np.ndarray] = {}
        for label, begin, end in zip(labels, [0, *ends[:-1]], ends, strict=True):
            parts.setdefault(label.upper(), content[:, begin:end])
        if head[192:197] in (b"EDF+D", b"BDF+D"):
            _check_starts(parts.get(f"{kind} ANNOTATIONS", content[:, :0]), seconds, fastest_hz)
        status = parts.get(_STATUS, content[:, :0])
        is_biosemi = kind == "BDF" and status.size > 0
        pauses_s = _epoch_starts(status, seconds) if is_biosemi else []
    except ValueError as error:
        raise DataError(
            f"'{path.name}' cannot be read: {error}",
            where=str(path),
            allowed="a complete EDF or BDF recording without gaps",
            fix="copy it again, or export it again, without gaps, from the program that recorded it",
        ) from None
    return EdfFile(channels, pauses_s)


def _check_starts(notes: np.ndarray, record_s: float, rate_hz: float) -> None:
    """Raise ValueError if a record does not begin where the one before ends, up to half a sample.

    `notes` [record, byte]: the annotations, of which the first of a record is its start.
    """
    matches = [_START.match(record.tobytes()) for record in notes]
    starts = np.array([float(match[1]) if match else np.nan for match in matches])
    is_next = np.abs(np.diff(starts) - record_s) <= 0.5 / rate_hz  # not if NaN
    if not is_next.all():
        first = int(is_next.argmin())
        times = f"{starts[first]:g} and {starts[first + 1]:g} s"
        raise ValueError(
            f"it is a recording with gaps: records {first + 1} and {first + 2}, of {record_s:g} s each, "
            f"begin at {times}"
        )


def _epoch_starts(status: np.ndarray, record_s: float) -> list[float]:
    """When, after the first sample, bit 16 of `status` [record, byte] rises: a new epoch, in seconds.

    Source: the page of BioSemi about the channel Status.
    """
    is_epoch = (status[:, 2::3] & 1).astype(np.int8)
    rises = np.flatnonzero(np.diff(is_epoch.ravel()) == 1) + 1
    return (rises * (record_s / is_epoch.shape[1])).tolist()


def _channel(label: str, named: str, rate: float, *texts: str, unit: str | None) -> Channel:
    if label.upper() in _STIM:
        return Channel(label, STIM, rate, 1.0)
    named = named.replace("μ", "µ")
    factor = _MICROVOLTS.get((named or unit or "").lower())
    word = re.split(r"[^0-9A-Z]", label.upper())[0]
    kind = "misc" if _OTHERS.fullmatch(word) or (named and factor is None) else "eeg"
    try:
        low, high, lowest, highest = map(float, texts)
    except ValueError:
        low = high = lowest = highest = np.nan
    problem = ""
    if not np.isfinite(high - low) or low == high or not lowest < highest:
        problem = f"has no scale: its range is {texts[0]} to {texts[1]}"
    elif factor is None:
        problem = f"is in {named}, not in volts" if named else NO_UNIT
    return Channel(label, kind, rate, (factor or 1.0) / _VOLTS_OF_MNE.get(named, 1.0), problem)


def _text(data: bytes) -> str:
    # The specification asks for ASCII; µ is the one byte of Latin-1, or the two of UTF-8.
    text = data.decode("utf-8", "replace")
    return (data.decode("latin-1") if "\ufffd" in text else text).replace("\0", " ").strip()
