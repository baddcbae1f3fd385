"""OpenBCI text recordings: lines of numbers below a header of lines that begin with %."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.cache import ArrayFile, Open
from models.common.data_files import identity, library_errors
from models.common.recordings.recording import STIM, Channel, Recording, RecordingPiece

MARKER = "Marker"
"""Name of the channel of events."""
_LINES = 50_000
"""Lines that are converted together."""
_VERSION = 1


def open_openbci(path: Path) -> Recording:
    """The EEG channels in microvolts, and the markers of recordings that have any.

    The text is converted once and cached. Reads and writes the disk. Raises DataError.
    """
    fix = "copy it again, or export it again from the program that recorded it"
    message, allowed = f"'{path.name}' cannot be read", "a continuous, complete recording"
    with library_errors(message, str(path), allowed=allowed, fix=fix):
        header = _OpenBciHeader(path)
        made_from = {"version": _VERSION, "path": str(path.resolve()), "file": identity(path)}
        size = path.stat().st_size
        values = cache.streamed("openbci", made_from, header.convert, size)["values"]
    names, rate = header.names, header.rate_hz
    values = values.reshape(-1, len(names))

    def read(picks: Sequence[int], first: int, last: int) -> np.ndarray:
        return values[first:last, picks].T.astype(np.float64)

    channels = tuple(Channel(name, STIM if name == MARKER else "eeg", rate) for name in names)
    pieces = (RecordingPiece(0.0, 0.0, len(values) / rate),)
    return Recording(path, channels, pieces, (), (), read, files=(path,))


class _OpenBciHeader:
    """Sampling rate and columns of a recording; the first column counts samples."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            lines = []
            for line in islice(stream, 100):
                lines.append(line)
                if not line.startswith("%"):
                    break
        header = "".join(lines)
        rate = re.search(r"Sample Rate\s*=\s*([0-9.]+)", header)
        channels = re.search(r"Number of channels\s*=\s*(\d+)", header)
        self.rate_hz = 0.0 if rate is None else float(rate[1])
        if not self.rate_hz:
            raise _error(path, "its header has no Sample Rate")
        titles = [title.strip() for title in lines[-1].split(",")]
        has_titles = not lines[-1].startswith("%") and not _is_number(titles[0])
        self.lines = len(lines) if has_titles else len(lines) - 1
        """Lines above the first sample."""
        if has_titles:
            named = {n: t for n, t in enumerate(titles) if t.startswith(("EXG", "EEG", MARKER))}
        elif channels is not None:
            named = {n: f"EXG Channel {n - 1}" for n in range(1, int(channels[1]) + 1)}
        else:
            raise _error(path, "its header has neither names of columns nor Number of channels")
        self.columns = list(named)
        self.names = [MARKER if t.startswith(MARKER) else t for t in named.values()]

    def convert(self, new: Open) -> None:
        """Write the values [time, channel] in microvolts as one vector. Raises DataError."""
        file = ArrayFile(new("values"), np.float32)
        for block in self._blocks():
            file.append(block.ravel())
        if not file.length:
            raise _error(self.path, "it has no samples")
        file.finish()

    def _blocks(self) -> Iterator[np.ndarray]:
        with self.path.open(encoding="utf-8-sig", errors="replace") as stream:
            first = self.lines + 1
            for _ in range(self.lines):
                next(stream)
            while lines := list(islice(stream, _LINES)):
                yield self._parsed(lines, first)
                first += len(lines)

    def _parsed(self, lines: list[str], first: int) -> np.ndarray:
        try:
            return np.loadtxt(lines, np.float32, delimiter=",", usecols=self.columns, ndmin=2)
        except ValueError:
            for number, line in enumerate(lines, start=first):
                cells = line.split(",")
                needed = [cells[n] if n < len(cells) else "" for n in self.columns]
                if line.strip() and not all(map(_is_number, needed)):
                    problem = f"line {number} has no number for each channel"
                    raise _error(self.path, problem, number) from None
            raise


def _error(path: Path, problem: str, line: int | None = None) -> DataError:
    return DataError(
        f"'{path.name}' cannot be read: {problem}",
        where=str(path) if line is None else f"{path}:{line}",
        allowed="OpenBCI text: a header with Sample Rate, then numbers for each sample",
        fix="copy it again, or remove the line",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
