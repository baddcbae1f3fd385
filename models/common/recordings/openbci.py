"""OpenBCI text recordings: lines of numbers below a header of lines that begin with %."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mne
import numpy as np

from models.base import DataError
from models.common import cache
from models.common.cache import ArrayFile, Open
from models.common.data_files import identity

MARKER = "Marker"
"""Name of the channel of events."""
_LINES = 50_000
"""Lines that are converted together."""
_VERSION = 1


class OpenBciRaw(mne.io.BaseRaw):
    """See mne.io.BaseRaw; volts of the EEG channels, and the markers of recordings that have any.

    The text is converted once and cached. Reads and writes the disk. Raises DataError, ValueError,
    OSError.
    """

    def __init__(self, path: Path) -> None:
        header = _OpenBciHeader(path)
        made_from = {"version": _VERSION, "path": str(path.resolve()), "file": identity(path)}
        values = cache.streamed("openbci", made_from, header.convert, path.stat().st_size)["values"]
        values = values.reshape(-1, len(header.names))
        types = ["stim" if name == MARKER else "eeg" for name in header.names]
        units = np.array([1.0 if kind == "stim" else 1e-6 for kind in types])
        super().__init__(
            mne.create_info(header.names, header.rate_hz, types),
            filenames=[path],
            last_samps=[len(values) - 1],
            raw_extras=[{"values": values, "units": units}],
        )

    def _read_segment_file(
        self, data: Any, idx: Any, fi: int, start: int, stop: int, cals: Any, mult: Any
    ) -> None:
        extras = self._raw_extras[fi]
        volts = extras["values"][start:stop].T * extras["units"][:, None]
        data[:] = volts[idx] * cals if mult is None else mult @ volts


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
        if rate is None:
            raise _error(path, "its header has no Sample Rate")
        self.rate_hz = float(rate[1])
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
