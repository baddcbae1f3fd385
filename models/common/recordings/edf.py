"""What MNE does not tell of an EDF or BDF file: its gaps, its length, and rates and units of channels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.recordings.recording import STIM, Channel

SUFFIXES = (".edf", ".bdf")
NO_UNIT = "names no unit"
_HEAD = 256
"""Bytes of the header, and of its part for each signal."""
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8)
"""Bytes of each field of a signal; the fields of all signals come one after the other."""
_MICROVOLTS = {"uv": 1.0, "µv": 1.0, "nv": 1e-3, "mv": 1e3, "v": 1e6}
_VOLTS_OF_MNE = {"uV": 1e-6, "µV": 1e-6, "mV": 1e-3}
"""The units that MNE converts; of others it gives the numbers."""
_STIM = ("STATUS", "TRIGGER", "STI 014")
_OTHERS = re.compile(
    "(EOG|E[CKR]G|EMG|M[CE]G|RESP|TEMP|S[AP]O2|LIGHT|SOUND|AUDIO|EVENT|PULSE|MARKER|HR)[0-9]*"
)
"""First words of labels of what is not EEG: the standard texts of EDF+, and common ones."""


def read_channels(path: Path, unit: str | None) -> list[Channel]:
    """The channels in a file; `unit`: of those that name none. Reads the disk.

    Raises DataError for what MNE would read wrongly: gaps, and a file that is longer or shorter than
    its header says. Source: Kemp and Olivan, European data format 'plus' (EDF+), 2003; the page of
    BioSemi about BDF.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            kind = "BDF" if head.startswith(b"\xffBIOSEMI") else "EDF" if head.startswith(b"0       ") else ""
            if path.suffix.lower() != f".{kind.lower()}":
                raise ValueError(f"it does not begin as a {path.suffix.lower()} file")
            if head[192:197] in (b"EDF+D", b"BDF+D"):
                raise ValueError("it is a recording with gaps")
            size, records, count = (int(head[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
            seconds = float(head[244:252])
            if size != _HEAD * (count + 1) or not 0 < count < 10_000 or not 0 < seconds < 1e6:
                raise ValueError("its header is damaged")
            labels, _, units, *ranges, _, counts = (
                [_text(file.read(width)) for _ in range(count)] for width in _WIDTHS
            )
        record = sum(map(int, counts)) * (3 if kind == "BDF" else 2)
        length, expected = path.stat().st_size, size + max(1, records) * record
        if not record or (length != expected if records > 0 else length < expected):  # -1: not closed
            raise ValueError(f"it has {length} bytes, and by its header {expected}")
        rows = zip(labels, units, (int(n) / seconds for n in counts), *ranges, strict=True)
        channels = [_channel(*row, unit=unit) for row in rows if row[0][3:] != " Annotations"]
        if not channels:
            raise ValueError("it has no signal, only annotations")
    except ValueError as error:
        raise DataError(
            f"'{path.name}' cannot be read: {error}",
            where=str(path),
            allowed="a complete EDF, EDF+C, BDF or BDF+C recording",
            fix="copy it again, or export it again, without gaps, from the program that recorded it",
        ) from None
    return channels


def _channel(label: str, named: str, rate: float, *texts: str, unit: str | None) -> Channel:
    if label.upper() in _STIM:
        return Channel(label, STIM, rate, 1.0)
    named = named.replace("μ", "µ")
    factor = _MICROVOLTS.get((named or unit or "").lower())
    is_other = _OTHERS.fullmatch((label.upper().split() or [""])[0]) or (named and factor is None)
    kind = "misc" if is_other else "eeg"
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
