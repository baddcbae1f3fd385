"""EPL text: level series of the EPL test suite, with the peaks that raters marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import isinf, nan
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from models.abr import formats
from models.abr.responses import ResponseOrigin, ResponseRow, resample
from models.base import DataError
from models.common.data_files import BadRecords, unreadable_file

WINDOW_MS = 8.5
"""The window that the program writing these files analyses."""
ORIGIN = ResponseOrigin(
    "EPL text",
    "animal",
    WINDOW_MS,
    "µV; the files name no unit, but the program that writes them uses µV",
    "animal, the file name without its run",
)
HEADER_LINES = 200


@dataclass(frozen=True)
class Series:
    """One file: a trace per level."""

    levels: list[float]
    traces: NDArray[np.float64]
    """[sample, level], within the window."""
    samples: float
    """Samples in the window, possibly a fraction."""
    rate: float
    """Stimuli per second; NaN if the file does not name it."""
    run: str
    """Its number; empty if the file does not name it."""


class EplReader:
    """Rows of level series; `silent_levels` counts columns that are all zero."""

    format, origin, notes = formats.EPL, ORIGIN, ()

    def __init__(self, bad_records: BadRecords, has_labels: bool = True) -> None:
        """Unless `has_labels`, the files of raters are not read."""
        self.bad_records, self._has_labels = bad_records, has_labels
        self.silent_levels = 0
        self.marked: Counter[str] = Counter()
        """The files of raters by the peaks they mark: `wave V`, or others without it."""

    def read(self, path: Path, name: str) -> Iterator[ResponseRow]:
        """A row for each level, or for each level and rater. Reads the disk.

        `name`, the file in its folder, without the run is the group: ABR-52-3 is run 3 of ABR-52.
        Problems are added to the bad records.
        """
        try:
            series = read_series(path)
            raters_files = analysis_files(path) if self._has_labels else []
            marked = [read_analysis(other) for other in raters_files]
        except DataError as error:
            self.bad_records.add(error.where or name, error.message, error.fix)
            return
        self.marked.update(rater.marks for rater in marked)
        raters: list[Analysis | None] = [*marked] or [None]
        for column, level in enumerate(series.levels):
            trace = series.traces[:, column]
            if not trace.any():
                self.silent_levels += 1
                continue
            signal = resample(trace, series.samples)
            for rater in raters:
                labels: dict[str, Any] = {} if rater is None else _labels(rater, level)
                where = f"{name}, level {level:g} dB"
                group = name.removesuffix(f"-{series.run}")
                yield ResponseRow(group, where, signal, level=level, rate=series.rate, **labels)


def analysis_files(path: Path) -> list[Path]:
    """The files beside `path` with the peaks that raters marked."""
    names = ((other, other.name) for other in path.parent.iterdir())
    marks = f"{path.name}-", "analyzed.txt"
    return sorted(o for o, name in names if name.startswith(marks[0]) and name.endswith(marks[1]))


def read_series(path: Path) -> Series:
    """The window of each level. Reads the disk. Raises DataError."""
    rows: list[list[float]] = []
    try:
        # Universal newlines: the header ends its lines in carriage returns, the data in both.
        with path.open(encoding="iso-8859-1", newline=None) as text:
            header = _header(text, path)
            levels = [float(level) for level in header["levels"].split(";") if level.strip()]
            step_ms = float(header["step"]) / 1000
            if not levels or not step_ms > 0:
                raise _error(path, "the header has no levels, or no sampling interval")
            samples = WINDOW_MS / step_ms
            filled = (line for line in text if line.strip())
            for line in islice(filled, int(np.ceil(samples))):
                rows.append([float(value) for value in line.split()])
            if any(":RUN-" in line for line in filled):
                raise _error(path, "a second series begins after the first: a file has one")
    except OSError as error:
        raise unreadable_file(path, error) from None
    except ValueError:
        problem = f"row {len(rows) + 1} of the data has a value that is not a number"
        raise _error(path, problem) from None
    if len(rows) < int(samples):
        raise _error(path, f"truncated: {len(rows)} of {int(samples)} samples in {WINDOW_MS} ms")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(levels):
            problem = f"row {number} has {len(row)} numbers; the header has {len(levels)} levels"
            raise _error(path, problem)
    rate, run = float(header.get("rate", nan)), header.get("run", "")
    return Series(levels, np.array(rows), samples, rate, run)


_FIELDS = {
    "levels": re.compile(r"LEVELS:\s*([-\d.;\s]+)"),
    "step": re.compile(r"SAMPLE \([^)]*sec\):\s*([\d.]+)"),
    "run": re.compile(r":RUN-(\d+)"),
    "rate": re.compile(r"REP RATE[^:]*:\s*([\d.]+)"),
}


def _header(text: TextIO, path: Path) -> dict[str, str]:
    lines = []
    for line in islice(text, HEADER_LINES):
        lines.append(line)
        if line.strip().endswith("DATA"):
            break
    else:
        raise _error(path, "no line DATA after the header")
    whole = "".join(lines)
    fields = {name: m[1] for name, field in _FIELDS.items() if (m := field.search(whole))}
    if missing := [
        field for name, field in (("levels", ":LEVELS:"), ("step", "SAMPLE (…sec):")) if name not in fields
    ]:
        raise _error(path, f"the header has no {' and no '.join(missing)}")
    return fields


def _labels(rater: Analysis, level: float) -> dict[str, float]:
    """The labels of a level by one rater; an infinite threshold: no response at any level.

    A rater of other peaks says nothing about wave V.
    """
    labels = {"threshold": nan if isinf(rater.threshold) else rater.threshold}
    if rater.marks != WAVE_V:
        return labels
    if level in rater.peaks:
        latency, amplitude = rater.peaks[level]
        if latency >= 0:
            return labels | {"exists": 1.0, "latency": latency, "amplitude": amplitude}
        return labels | {"exists": 0.0}
    return labels | ({"exists": 0.0} if isinf(rater.threshold) else {})


def _error(path: Path, problem: str) -> DataError:
    return DataError(problem, where=str(path))


LATENCY, AMPLITUDE = "P5 Latency", "P5 Amplitude"
WAVE_V = "wave V"
_PEAK = re.compile(r"([PN]\d+) Latency")
_THRESHOLD = re.compile(r"^Threshold \(dB SPL\):\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Analysis:
    """The marks of one rater on one file."""

    threshold: float
    """In dB SPL; NaN: none given; infinity: no level had a response."""
    peaks: dict[float, tuple[float, float]]
    """By level: latency in ms, negative without a wave V, and amplitude in µV."""
    marks: str = WAVE_V
    """Or the marked peaks without wave V, such as those of a compound action potential."""


def read_analysis(path: Path) -> Analysis:
    """The marks in `path`. Reads the disk. Raises DataError."""
    try:
        text = path.read_text(encoding="iso-8859-1")
    except OSError as error:
        raise unreadable_file(path, error) from None
    threshold_line = _THRESHOLD.search(text)
    if threshold_line is None:
        raise _error(path, "no line 'Threshold (dB SPL): …'")
    table = [line.split("\t") for line in text.split("\n") if "\t" in line]
    heads = [cell.strip() for cell in table[0]] if table else []
    others = [peak[1] for head in heads if (peak := _PEAK.fullmatch(head))]
    has_wave_v = bool({LATENCY, AMPLITUDE} & set(heads))
    needed = ("Level", LATENCY, AMPLITUDE) if has_wave_v or not others else ("Level",)
    if missing := [name for name in needed if name not in heads]:
        raise _error(path, f"no table with the column {' and '.join(missing)}")
    columns = [heads.index(name) for name in needed]
    try:
        threshold = nan if threshold_line[1] == "None" else float(threshold_line[1])
        if not has_wave_v:
            return Analysis(threshold, {}, f"{' and '.join(others)}, no wave V")
        rows = [[float(cells[column]) for column in columns] for cells in table[1:]]
    except (ValueError, IndexError):
        raise _error(path, "a value that is not a number, or an incomplete row") from None
    return Analysis(threshold, {level: (latency, height) for level, latency, height in rows})
