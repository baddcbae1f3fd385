"""EDF and BDF files, read by their own header: rates, gaps, units and annotations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import BinaryIO

import numpy as np

from models.base import DataError
from models.common.data_files import listed
from models.common.recordings.recording import STIM, Channel, Event, Recording, RecordingPiece
from models.common.text_file import decoded

EDF_HEAD, BDF_HEAD = b"0       ", b"\xffBIOSEMI"
_HEAD = 256
"""Bytes of the header, and of its part for each signal."""
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Bytes of each field of a signal; the fields of all signals come one after the other."""
_LABEL, _UNIT, _LOW, _HIGH, _LOWEST, _HIGHEST, _COUNT = 0, 2, 3, 4, 5, 6, 8
_MICROVOLTS = {"uv": 1.0, "µv": 1.0, "nv": 1e-3, "mv": 1e3, "v": 1e6}
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_STIM = ("STATUS", "TRIGGER", "STI 014")
_OTHER_KINDS = {
    **{name: name.lower() for name in ("EOG", "ECG", "EMG", "MEG")},
    **dict.fromkeys(("EKG",), "ecg"),
    **dict.fromkeys(("RESP", "TEMP", "SAO2", "SPO2", "LIGHT", "SOUND", "AUDIO", "EVENT"), "misc"),
    **dict.fromkeys(("ERG", "MCG", "PULSE", "MARKER", "HR"), "misc"),
}
"""First words of labels of what is not EEG: the standard texts of EDF+, and common ones."""
_TRIGGER_BITS = 0xFFFF
"""The bits of the channel Status of BioSemi that are triggers; the others are its own state."""
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d*(?:\.\d*)?))?\x14(.*)", re.DOTALL)
_BLOCK_BYTES = 2**22
"""Bytes of whole records that are read at once."""
_MOST_DAMAGED = 10
"""Annotations, or as many as records: with more, bytes were added or removed within the file."""
_TOLERANCE_S = 1e-3
"""A difference between the times of two records that is no gap: times are rounded."""


@dataclass(frozen=True)
class _Signal:
    label: str
    count: int
    """Samples in a record."""
    offset: int
    """Bytes of a record before it."""
    unit: str
    gain: float
    """Microvolts of a step."""
    zero: float
    """Microvolts at the number 0."""
    problem: str


@dataclass(frozen=True)
class _Header:
    """What the header says."""

    path: Path
    width: int
    """Bytes of a sample: 2 in EDF, 3 in BDF."""
    size: int
    """Bytes of the header."""
    reserved: str
    """EDF+C: without gaps; EDF+D: with gaps; empty: EDF."""
    records: int
    record_s: float
    signals: tuple[_Signal, ...]
    notes: tuple[str, ...]

    @property
    def record_bytes(self) -> int:
        return sum(signal.count for signal in self.signals) * self.width

    @property
    def has_times(self) -> bool:
        """Whether each record stores when it begins."""
        return self.reserved[:4] in ("EDF+", "BDF+")

    @property
    def may_have_gaps(self) -> bool:
        return self.has_times and self.reserved[4:5] == "D"


def is_edf(head: bytes) -> bool:
    """Whether a file with these first bytes is EDF or BDF."""
    return head.startswith((EDF_HEAD, BDF_HEAD))


def open_edf(path: Path, unit: str | None = None) -> Recording:
    """The recording in an EDF, EDF+, BDF or BDF+ file. Reads header and annotations.

    Raises DataError, OSError. Sources: Kemp et al., A simple format for exchange of digitized
    polygraphic recordings, 1992; Kemp and Olivan, European data format 'plus' (EDF+), 2003; the
    page of BioSemi about BDF, whose samples have 24 bits.
    """
    with path.open("rb", buffering=0) as file:
        header = _read_header(path, file, unit or "")
        times, annotations, notes = _read_annotations(header, file)
    pieces, more = _pieces(header, times)
    begin = times[0] or 0.0
    events = tuple(Event(onset - begin, lasts, name) for onset, lasts, name in annotations)
    signals = [s for s in header.signals if s.label not in _ANNOTATIONS and s.count]
    channels = [_channel(signal, header.record_s) for signal in signals]
    if not channels:
        raise _error(path, "has no signal, only annotations or nothing")
    if unknown := [channel.name for channel in channels if channel.problem == "names no unit"]:
        more.append(f"{len(unknown)} channels name no unit and are not read: {listed(unknown, 3)}")
    said, samples = (*header.notes, *notes, *more), _EdfSamples(header, signals).read
    found = tuple(channels), tuple(pieces)
    return Recording(path, *found, events, said, samples, has_integers=True, files=(path,))


class _EdfSamples:
    def __init__(self, header: _Header, signals: Sequence[_Signal]) -> None:
        self._header, self._signals = header, signals

    def read(self, picks: Sequence[int], first: int, last: int) -> np.ndarray:
        signals = [self._signals[pick] for pick in picks]
        values = np.empty((len(signals), max(0, last - first)))
        if first >= last:
            return values
        count, size = signals[0].count, self._header.record_bytes
        at_once = max(1, _BLOCK_BYTES // size)
        with self._header.path.open("rb", buffering=0) as file:
            for record in range(first // count, -(-last // count), at_once):
                records = min(at_once, -(-last // count) - record)
                begin, end = max(first, record * count), min(last, (record + records) * count)
                span = slice(begin - record * count, end - record * count)
                # A record may be longer than what memory should hold: then a signal at a time.
                block = self._block(file, record, records) if size <= _BLOCK_BYTES else None
                for row, signal in zip(values, signals, strict=True):
                    data = self._block(file, record, 1, signal) if block is None else block
                    row[begin - first : end - first] = self._decoded(signal, data)[span]
        return values

    def _block(self, file: BinaryIO, record: int, records: int, signal: _Signal | None = None) -> np.ndarray:
        """Bytes [record, byte] of whole records, or of one signal of a record."""
        header = self._header
        offset, size = header.size + record * header.record_bytes, header.record_bytes
        if signal is not None:
            offset, size = offset + signal.offset, signal.count * header.width
        data = np.frombuffer(_bytes(header.path, file, offset, records * size), np.uint8)
        return data.reshape(records, size)

    def _decoded(self, signal: _Signal, block: np.ndarray) -> np.ndarray:
        width, size = self._header.width, signal.count * self._header.width
        first = 0 if block.shape[1] == size else signal.offset
        data = np.ascontiguousarray(block[:, first : first + size]).ravel()
        if width == 2:
            integers = data.view("<i2").astype(np.int32)
        else:
            low, middle, high = data.reshape(-1, 3).T.astype(np.int32)
            integers = (low << 8 | middle << 16 | high << 24) >> 8
            if signal.label.upper() in _STIM:
                return integers & _TRIGGER_BITS
        return integers * signal.gain + signal.zero


def _bytes(path: Path, file: BinaryIO, offset: int, number: int) -> bytes:
    file.seek(offset)
    data = file.read(number)
    if len(data) < number:
        raise _error(path, f"ends at byte {offset + len(data):,}, within a record")
    return data


def _read_header(path: Path, file: BinaryIO, unit: str) -> _Header:
    head = file.read(_HEAD)
    if len(head) < _HEAD or not is_edf(head):
        raise _error(path, "is not EDF or BDF: its header is incomplete or of another format")
    texts = {
        name: _text(head[first:last])
        for name, first, last in (
            ("bytes of the header", 184, 192),
            ("reserved", 192, 236),
            ("number of records", 236, 244),
            ("duration of a record", 244, 252),
            ("number of signals", 252, 256),
        )
    }
    count = int(_number(path, texts, "number of signals"))
    size, width = int(_number(path, texts, "bytes of the header")), 2 if head[0] != 0xFF else 3
    if count < 1 or size != _HEAD * (count + 1):
        raise _error(
            path, f"has a header of {size} bytes for {count} signals, which need {_HEAD * (count + 1)}"
        )
    record_s = _number(path, texts, "duration of a record")
    if not 0 < record_s < 1e6:
        raise _error(path, f"has records of {record_s:g} s, which gives no sampling rate")
    fields = file.read(_HEAD * count)
    if len(fields) < _HEAD * count:
        raise _error(path, f"ends within its header, which names {count} signals")
    signals = _signals(path, fields, count, width, unit)
    records = int(_number(path, texts, "number of records"))
    header = _Header(path, width, size, texts["reserved"], records, record_s, signals, ())
    return _counted(header)


def _text(data: bytes) -> str:
    # The specification asks for ASCII; µ is the one byte of Latin-1, or the two of UTF-8.
    text = data.decode("utf-8", "replace")
    return (data.decode("latin-1") if "\ufffd" in text else text).replace("\0", " ").strip()


def _number(path: Path, texts: dict[str, str], name: str) -> float:
    try:
        value = float(texts[name].replace(",", "."))
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise _error(path, f"has the {name} '{texts[name]}' in its header, which is not a number")
    return value


def _signals(path: Path, fields: bytes, count: int, width: int, no_unit: str) -> tuple[_Signal, ...]:
    columns, at = [], 0
    for size in _WIDTHS:
        columns.append([_text(fields[at + n * size : at + (n + 1) * size]) for n in range(count)])
        at += size * count
    signals, offset = [], 0
    for label, unit, low, high, lowest, highest, samples in zip(
        *(columns[n] for n in (_LABEL, _UNIT, _LOW, _HIGH, _LOWEST, _HIGHEST, _COUNT)), strict=True
    ):
        number = _number(path, {"number of samples": samples}, "number of samples")
        if number < 0:
            raise _error(path, f"has {number:g} samples of '{label}' in a record")
        unit = unit or no_unit
        gain, zero, problem = _scale(unit, (low, high), (lowest, highest))
        signals.append(_Signal(label, int(number), offset, unit, gain, zero, problem))
        offset += int(number) * width
    if not offset:
        raise _error(path, "has records without samples")
    return tuple(signals)


def _scale(unit: str, physical: Sequence[str], digital: Sequence[str]) -> tuple[float, float, str]:
    """Microvolts of a step and at 0, and why there are none."""
    microvolts = _MICROVOLTS.get(unit.replace("μ", "µ").lower())
    try:
        (low, high), (lowest, highest) = (
            [float(text.replace(",", ".")) for text in pair] for pair in (physical, digital)
        )
    except ValueError:
        return 1.0, 0.0, f"has no scale: its range is '{' to '.join(physical)}'"
    if not all(map(isfinite, (low, high, lowest, highest))) or low == high or lowest >= highest:
        text = f"{low:g} to {high:g} {unit} for the numbers {lowest:g} to {highest:g}"
        return 1.0, 0.0, f"has no scale: its range is {text}"
    gain = (high - low) / (highest - lowest)
    factor = 1.0 if microvolts is None else microvolts
    problem = "" if microvolts else f"is in {unit}, not in volts" if unit else "names no unit"
    return gain * factor, (low - lowest * gain) * factor, problem


def _channel(signal: _Signal, record_s: float) -> Channel:
    name, rate = signal.label.upper(), signal.count / record_s
    if name in _STIM:
        return Channel(signal.label, STIM, rate)
    kind = _OTHER_KINDS.get((name.split() or [""])[0].rstrip("0123456789"), "eeg")
    if kind == "eeg" and signal.unit.replace("μ", "µ").lower() not in (*_MICROVOLTS, ""):
        kind = "misc"
    return Channel(signal.label, kind, rate, problem=signal.problem)


def _counted(header: _Header) -> _Header:
    """`header` with the number of records that the file has; raises DataError if it has fewer."""
    data_bytes = header.path.stat().st_size - header.size
    whole, rest = divmod(data_bytes, header.record_bytes)
    records, notes = header.records, []
    if records <= 0:
        if not whole:
            raise _error(header.path, "has no record of samples")
        records = whole
        notes.append(f"its header has no number of records (the recording was not closed): {whole}")
        if rest:
            notes.append(f"its last record is incomplete and left out ({rest} bytes)")
    elif whole < records:
        expected = header.size + records * header.record_bytes
        # The command writes another number of records into the header.
        command = f"printf '%-8d' {whole} | dd of={quote(str(header.path))} bs=1 seek=236 conv=notrunc"
        keep = f", or keep its first {whole} of {records} records:  {command}"
        raise DataError(
            f"'{header.path.name}' is truncated: {header.size + data_bytes} of {expected} bytes",
            where=str(header.path),
            allowed="a complete recording",
            fix="copy it again" + (keep if whole else ""),
        )
    elif whole > records:
        notes.append(f"{whole - records} records after the {records} of its header are not read")
    elif data_bytes > records * header.record_bytes:
        notes.append(f"{data_bytes - records * header.record_bytes} bytes after its last record")
    return replace(header, records=records, notes=tuple(notes))


Annotation = tuple[float, float, str]


def _read_annotations(
    header: _Header, file: BinaryIO
) -> tuple[list[float | None], list[Annotation], list[str]]:
    """When each record begins (None: unknown), the annotations, and notes."""
    signals = [s for s in header.signals if s.label in _ANNOTATIONS and s.count]
    if not signals:
        return [None] * header.records, [], []
    times: list[float | None] = []
    raw_annotations: list[tuple[float, float, bytes]] = []
    damaged = 0
    for record in range(header.records):
        time = None
        for signal in signals:
            offset = header.size + record * header.record_bytes + signal.offset
            data = _bytes(header.path, file, offset, signal.count * header.width)
            for entry in _entries(data):
                if entry is None:
                    damaged += 1
                    continue
                onset, lasts, texts = entry
                if time is None and signal is signals[0] and not texts[0] and header.has_times:
                    time = onset
                raw_annotations += [(onset, lasts, text) for text in texts if text]
        times.append(time)
    if damaged > max(_MOST_DAMAGED, header.records):
        problem = "annotations are damaged: its records are not where its header says"
        raise _error(header.path, f"has {damaged} of {damaged + len(raw_annotations)} {problem}")
    notes = [f"{damaged} annotations are damaged and left out"] if damaged else []
    _, encoding = decoded(b"\n".join(text for *_, text in raw_annotations))
    if encoding != "utf-8":
        notes.append(f"its annotations are not UTF-8; they are read as {encoding}")
    return times, [(a, b, text.decode(encoding).strip()) for a, b, text in raw_annotations], notes


def _entries(data: bytes) -> Iterator[tuple[float, float, list[bytes]] | None]:
    """Onset, duration and texts of each list of annotations; None: it is damaged."""
    for part in data.split(b"\0"):
        if not part:
            continue
        match = _ONSET.fullmatch(part)
        if match is None:
            yield None
        else:
            yield float(match[1]), float(match[2] or 0), match[3].split(b"\x14")


def _pieces(header: _Header, times: Sequence[float | None]) -> tuple[list[RecordingPiece], list[str]]:
    """The pieces between gaps, and notes. Raises DataError if the times of records are wrong."""
    whole = [RecordingPiece(0.0, 0.0, header.records * header.record_s)]
    if not header.has_times or (times[0] is None and not header.may_have_gaps):
        return whole, []
    pieces, problem = _timed_pieces(times, header.record_s)
    kind, gaps = header.reserved[:5], len(pieces) - 1
    if not header.may_have_gaps:
        note = f"the times of its records differ from {kind}, which has no gaps; they are not used"
        return whole, [note] if problem or gaps else []
    if problem:
        raise _error(header.path, f"is {kind}, and {problem}")
    note = f"{kind} with {gaps} gap{'s' * (gaps > 1)}; events are placed by the clock"
    return pieces, [note] if gaps else []


def _timed_pieces(times: Sequence[float | None], length: float) -> tuple[list[RecordingPiece], str]:
    """The pieces of records that begin at `times`, and why they are wrong; empty: they are not."""
    begin = times[0]
    pieces = [RecordingPiece(0.0, 0.0, 0.0)]
    for number, time in enumerate(times, start=1):
        last = pieces[-1]
        if begin is None or time is None:
            return pieces, f"record {number} has no time"
        late = time - begin - last.end_s
        if late < -max(_TOLERANCE_S, 0.01 * length):
            problem = f"record {number} begins at {time:g} s, before the end of the one before"
            return pieces, f"{problem} ({begin + last.end_s:g} s)"
        if abs(late) <= _TOLERANCE_S:
            pieces[-1] = RecordingPiece(last.start_s, last.stored_s, last.seconds + length)
        else:
            pieces.append(RecordingPiece(time - begin, (number - 1) * length, length))
    return pieces, ""


def _error(path: Path, problem: str) -> DataError:
    return DataError(
        f"'{path.name}' cannot be read: it {problem}",
        where=str(path),
        allowed="a complete EDF, EDF+, BDF or BDF+ recording",
        fix="copy it again, or export it again from the program that recorded it",
    )
