"""What MNE does not tell of an EDF or BDF file: its gaps, its length, and rates and units of channels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.recordings.recording import STIM

SUFFIXES = (".edf", ".bdf")
_HEAD = 256
"""Bytes of the header, and of its part for each signal."""
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Bytes of each field of a signal; the fields of all signals come one after the other."""
_LABEL, _UNIT, _LOW, _HIGH, _LOWEST, _HIGHEST, _COUNT = 0, 2, 3, 4, 5, 6, 8
_MICROVOLTS = {"uv": 1.0, "µv": 1.0, "nv": 1e-3, "mv": 1e3, "v": 1e6}
_VOLTS_OF_MNE = {"uV": 1e-6, "µV": 1e-6, "mV": 1e-3}
"""The units that MNE converts; of others it gives the numbers."""
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_STIM = ("STATUS", "TRIGGER", "STI 014")
_OTHER_KINDS = {
    **{name: name.lower() for name in ("EOG", "ECG", "EMG", "MEG")},
    **dict.fromkeys(("EKG",), "ecg"),
    **dict.fromkeys(("RESP", "TEMP", "SAO2", "SPO2", "LIGHT", "SOUND", "AUDIO", "EVENT"), "misc"),
    **dict.fromkeys(("ERG", "MCG", "PULSE", "MARKER", "HR"), "misc"),
}
"""First words of labels of what is not EEG: the standard texts of EDF+, and common ones."""


@dataclass(frozen=True)
class Signal:
    """A signal as the header describes it."""

    kind: str
    rate_hz: float
    scale: float
    """Microvolts of 1 as MNE gives it."""
    problem: str
    """Why its values are not microvolts; empty: they are."""


def read_signals(path: Path, unit: str | None) -> list[Signal]:
    """The signals in a file; `unit`: of those that name none. Reads the disk.

    Raises DataError for what MNE would read wrongly: gaps, and a file that is longer or shorter than
    its header says. Source: Kemp and Olivan, European data format 'plus' (EDF+), 2003; the page of
    BioSemi about BDF.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        is_bdf = head[:1] == b"\xff"
        kind = "BDF" if is_bdf else "EDF"
        if path.suffix.lower() != f".{kind.lower()}" or not head.startswith((b"0       ", b"\xffBIOSEMI")):
            raise _error(path, f"it does not begin as a {path.suffix.lower()} file")
        if head[192:197] in (b"EDF+D", b"BDF+D"):
            raise _error(path, f"it is {head[192:197].decode()}, a recording with gaps")
        try:
            size, records, count = (int(head[a:b]) for a, b in ((184, 192), (236, 244), (252, 256)))
            seconds = float(head[244:252])
            columns = [
                [_text(file.read(width)) for _ in range(count)] for width in _WIDTHS if 0 < count < 10_000
            ]
            counts = [int(text) for text in columns[_COUNT]]
        except (ValueError, IndexError):
            raise _error(path, "its header is damaged") from None
    record = sum(counts) * (3 if is_bdf else 2)
    if size != _HEAD * (count + 1) or not 0 < seconds < 1e6 or min(counts) < 0 or not record:
        raise _error(path, "its header is damaged")
    length, expected = path.stat().st_size, size + max(1, records) * record
    if length != expected if records > 0 else length < expected:  # -1: it was not closed
        problem = "is truncated" if length < expected else "is longer than its header says"
        raise _error(path, f"it {problem}: {length} of {expected} bytes")
    rows = zip(*(columns[n] for n in (_LABEL, _UNIT, _LOW, _HIGH, _LOWEST, _HIGHEST)), counts, strict=True)
    signals = [
        _signal(label, named, texts, number / seconds, unit)
        for label, named, *texts, number in rows
        if label not in _ANNOTATIONS
    ]
    if not signals:
        raise _error(path, "it has no signal, only annotations")
    return signals


def _signal(label: str, named: str, texts: list[str], rate: float, unit: str | None) -> Signal:
    if label.upper() in _STIM:
        return Signal(STIM, rate, 1.0, "")
    factor = _MICROVOLTS.get((named or unit or "").replace("μ", "µ").lower())
    kind = _OTHER_KINDS.get((label.upper().split() or [""])[0].rstrip("0123456789"), "eeg")
    if kind == "eeg" and named and factor is None:
        kind = "misc"
    try:
        low, high, lowest, highest = map(float, texts)
    except ValueError:
        low = high = lowest = highest = np.nan
    problem = ""
    if not np.isfinite(high - low) or low == high or not lowest < highest:
        problem = f"has no scale: its range is {texts[0]} to {texts[1]}"
    elif factor is None:
        problem = f"is in {named}, not in volts" if named else "names no unit"
    return Signal(kind, rate, (factor or 1.0) / _VOLTS_OF_MNE.get(named.replace("μ", "µ"), 1.0), problem)


def _text(data: bytes) -> str:
    # The specification asks for ASCII; µ is the one byte of Latin-1, or the two of UTF-8.
    text = data.decode("utf-8", "replace")
    return (data.decode("latin-1") if "\ufffd" in text else text).replace("\0", " ").strip()


def _error(path: Path, problem: str) -> DataError:
    return DataError(
        f"'{path.name}' cannot be read: {problem}",
        where=str(path),
        allowed="a complete EDF, EDF+C, BDF or BDF+C recording",
        fix="copy it again, or export it again, without gaps, from the program that recorded it",
    )
