"""Level series of the EPL test suite: text in ISO-8859-1, with the peaks that raters marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import isinf, nan
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from models.abr.responses import Origin, Row, to_points
from models.base import DataError
from models.common.data_files import BadRecords, unreadable_file

MAGIC = b":RUN-"
WINDOW_MS = 8.5
"""What the program that writes these files analyses."""
ORIGIN = Origin(
    "EPL text",
    "animal",
    WINDOW_MS,
    "µV; the files name no unit, and the program that writes them takes them as µV",
)
HEADER_LINES = 200


@dataclass(frozen=True)
class Series:
    """One file: a trace for each level."""

    levels: list[float]
    traces: NDArray[np.float64]
    """[sample, level], of the window."""
    samples: float
    """That the window has; a fraction of one allowed."""
    rate: float
    """Presentations a second; NaN where the file does not say."""


class EplReader:
    """Rows of level series; `silent_levels` counts columns of nothing but zeros."""

    def __init__(self, bad_records: BadRecords) -> None:
        self.bad_records = bad_records
        self.silent_levels = 0
        self.raters = 0

    def read(self, path: Path, name: str) -> Iterator[Row]:
        """A row for each level, or for each level and rater. Reads the disk.

        `name`, the file in its folder, is the group: other runs of one animal are other files.
        What is wrong goes to the faults.
        """
        try:
            series = read_series(path)
            marked = [read_analysed(other) for other in analysed_files(path)]
        except DataError as fault:
            self.bad_records.add(fault.where or name, fault.message)
            return
        self.raters += len(marked)
        raters: list[Analysed | None] = [*marked] or [None]
        for column, level in enumerate(series.levels):
            trace = series.traces[:, column]
            if not trace.any():
                self.silent_levels += 1
                continue
            signal = to_points(trace, series.samples)
            for rater in raters:
                labels: dict[str, Any] = {} if rater is None else _labels(rater, level)
                where = f"{name}, level {level:g} dB"
                yield Row(name, where, signal, level=level, rate=series.rate, **labels)


def analysed_files(path: Path) -> list[Path]:
    """The files beside `path` in which raters marked its peaks."""
    return sorted(
        other
        for other in path.parent.iterdir()
        if other.name.startswith(f"{path.name}-") and other.name.endswith("analyzed.txt")
    )


def read_series(path: Path) -> Series:
    """The window of each level. Reads the disk, no farther than the window. Raises DataError."""
    try:
        # Universal newlines: the header ends its lines in carriage returns, the data in both.
        with path.open(encoding="iso-8859-1", newline=None) as text:
            header = _header(text, path)
            levels = [float(level) for level in header["levels"].split(";") if level.strip()]
            step_ms = float(header["step"]) / 1000
            if not levels or not step_ms > 0:
                raise _fault(path, "the header gives no levels, or no time between samples")
            samples = WINDOW_MS / step_ms
            rows = [_row(line, path, n) for n, line in enumerate(_needed(text, samples), start=1)]
    except OSError as error:
        raise unreadable_file(path, error) from None
    if len(rows) < int(samples):
        raise _fault(
            path, f"is cut short: {len(rows)} of the {int(samples)} samples of {WINDOW_MS} ms"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(levels):
            raise _fault(
                path, f"row {number} has {len(row)} numbers, the header {len(levels)} levels"
            )
    return Series(levels, np.array(rows), samples, float(header.get("rate", nan)))


_FIELDS = {
    "levels": re.compile(r"LEVELS:\s*([-\d.;\s]+)"),
    "step": re.compile(r"SAMPLE \([^)]*sec\):\s*([\d.]+)"),
    "rate": re.compile(r"REP RATE[^:]*:\s*([\d.]+)"),
}


def _header(text: TextIO, path: Path) -> dict[str, str]:
    lines = []
    for line in islice(text, HEADER_LINES):
        lines.append(line)
        if line.strip().endswith("DATA"):
            break
    else:
        raise _fault(path, "has no line DATA behind its header")
    whole = "".join(lines)
    found = {name: m[1] for name, field in _FIELDS.items() if (m := field.search(whole))}
    if missing := [
        word
        for name, word in (("levels", ":LEVELS:"), ("step", "SAMPLE (…sec):"))
        if name not in found
    ]:
        raise _fault(path, f"the header has no {' and no '.join(missing)}")
    return found


def _needed(text: TextIO, samples: float) -> Iterator[str]:
    rows = (line for line in text if line.strip())
    return islice(rows, int(np.ceil(samples)))


def _row(line: str, path: Path, number: int) -> list[float]:
    try:
        return [float(value) for value in line.split()]
    except ValueError:
        raise _fault(path, f"row {number} of the data holds what is no number") from None


def _labels(rater: Analysed, level: float) -> dict[str, float]:
    """What a rater said of a level; a threshold of infinity: no response at any level."""
    labels = {"threshold": nan if isinf(rater.threshold) else rater.threshold}
    if level in rater.peaks:
        latency, amplitude = rater.peaks[level]
        if latency >= 0:
            return labels | {"exists": 1.0, "latency": latency, "amplitude": amplitude}
        return labels | {"exists": 0.0}
    return labels | ({"exists": 0.0} if isinf(rater.threshold) else {})


def _fault(path: Path, what: str) -> DataError:
    return DataError(what, where=str(path))


LATENCY, AMPLITUDE = "P5 Latency", "P5 Amplitude"
_THRESHOLD = re.compile(r"^Threshold \(dB SPL\):\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Analysed:
    """One rater on one file."""

    threshold: float
    """In dB SPL; NaN where none was given, infinity where no level had a response."""
    peaks: dict[float, tuple[float, float]]
    """By level: latency in ms, negative where there is no wave V, and amplitude in µV."""


def read_analysed(path: Path) -> Analysed:
    """What stands in `path`. Reads the disk. Raises DataError."""
    try:
        text = path.read_text(encoding="iso-8859-1")
    except OSError as error:
        raise unreadable_file(path, error) from None
    found = _THRESHOLD.search(text)
    if found is None:
        raise DataError("has no line 'Threshold (dB SPL): …'", where=str(path))
    word = found[1]
    table = [line.split("\t") for line in text.splitlines() if "\t" in line]
    heads = [cell.strip() for cell in table[0]] if table else []
    if not {"Level", LATENCY, AMPLITUDE} <= set(heads):
        raise DataError(
            f"has no table with the columns Level, {LATENCY} and {AMPLITUDE}", where=str(path)
        )
    columns = [heads.index(name) for name in ("Level", LATENCY, AMPLITUDE)]
    try:
        threshold = nan if word == "None" else float(word)
        rows = [[float(cells[column]) for column in columns] for cells in table[1:]]
    except (ValueError, IndexError):
        raise DataError(
            "holds what is no number, or a row that is cut short", where=str(path)
        ) from None
    return Analysed(threshold, {level: (latency, height) for level, latency, height in rows})
