"""EPL text: level series of the EPL test suite, with the peaks that raters marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isinf, nan
from pathlib import Path
from typing import Any

import numpy as np

from gearshift.models.abr.responses import ResponseOrigin, ResponseReading, ResponseRow, resample
from gearshift.models.base import DataError
from gearshift.models.common.data_files import unreadable_file

WINDOW_MS = 8.5
"""The window that the program writing these files analyses."""
ORIGIN = ResponseOrigin(
    "EPL text",
    "animal",
    WINDOW_MS,
    "µV; the files name no unit, but the program that writes them uses µV",
    "animal, the file name without its run",
)
WAVE_V = "wave V"
_MOST_BYTES = 2**26
_FIELDS = (
    re.compile(r"LEVELS:\s*([-\d.;\s]+)"),
    re.compile(r"SAMPLE \([^)]*sec\):\s*([\d.]+)"),
    re.compile(r"REP RATE[^:]*:\s*([\d.]+)"),
    re.compile(r":RUN-(\d+)"),
)
_PEAK = re.compile(r"([PN]\d+) Latency")
_THRESHOLD = re.compile(r"^Threshold \(dB SPL\):\s*(\S+)", re.MULTILINE)


def read(path: Path, name: str, reading: ResponseReading) -> Iterator[ResponseRow]:
    """A row for each level, or for each level and rater. Reads the disk.

    `name`, the file in its folder, without the run is the group: ABR-52-3 is run 3 of ABR-52.
    Levels that are all zero are left out. Problems are added to the bad records.
    """
    try:
        levels, traces, samples, rate, run = _series(path)
        marks = f"{path.name}-", "analyzed.txt"
        beside = sorted(path.parent.iterdir()) if reading.has_labels else []
        raters = [f for f in beside if f.name.startswith(marks[0]) and f.name.endswith(marks[1])]
        labels = [_labels(other, levels, reading) for other in raters] or [{}]
    except OSError as error:
        reading.bad_records.add(name, unreadable_file(path, error).message)
    except DataError as error:
        reading.bad_records.add(error.where, error.message)
    else:
        for level, trace in zip(levels, traces.T, strict=True):
            if not trace.any():
                reading.left_out["silent_levels"] += 1
                continue
            signal = resample(trace, samples)
            where = f"{name}, level {level:g} dB"
            for of_level in labels:
                known = {"level": level, "rate": rate, **of_level.get(level, {})}
                yield ResponseRow(name.removesuffix(f"-{run}"), where, signal, known)


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise _error(path, f"it has more than {_MOST_BYTES:,} bytes")
    return path.read_text(encoding="iso-8859-1")  # its ends of lines are \r, \n or both


def _series(path: Path) -> tuple[list[float], np.ndarray, float, float, str]:
    """Levels, the traces [sample, level] in the window, its samples, the stimuli a second, the run."""
    header, *others = re.split(r"DATA[ \t]*\n", _text(path), maxsplit=1)
    if not others:
        raise _error(path, "no line DATA after the header")
    named, step, rate, run = (match[1] if (match := x.search(header)) else "" for x in _FIELDS)
    try:
        levels = [float(n) for n in named.split(";") if n.strip()]
        step_ms = float(step or 0) / 1000
        if not levels or not step_ms > 0:
            raise _error(path, "the header has no :LEVELS:, or no interval SAMPLE (…sec):")
        if ":RUN-" in others[0]:
            raise _error(path, "a second series begins after the first: a file has one")
        samples = WINDOW_MS / step_ms
        lines = list(filter(str.strip, others[0].split("\n")))[: int(np.ceil(samples))]
        traces = np.array([line.split() for line in lines], dtype=np.float64)
    except (ValueError, OverflowError):
        raise _error(
            path, "the data has a value that is no number, or rows of several lengths"
        ) from None
    if len(traces) < int(samples) or traces.shape[1:] != (len(levels),):
        problem = f"truncated: {traces.shape} of {int(samples)} samples in {WINDOW_MS} ms"
        raise _error(path, f"{problem} and {len(levels)} levels")
    return levels, traces, samples, float(rate or nan), run


def _labels(
    path: Path, levels: list[float], reading: ResponseReading
) -> dict[float, dict[str, Any]]:
    """The labels of each level by one rater; a negative latency, or an infinite threshold: no wave.

    A rater of other peaks says nothing about wave V.
    """
    text = _text(path)
    named = _THRESHOLD.search(text)
    table = [line.split("\t") for line in text.split("\n") if "\t" in line]
    heads = [cell.strip() for cell in table[0]] if table else []
    marked = [peak[1] for head in heads if (peak := _PEAK.fullmatch(head))]
    has_wave = "P5" in marked
    try:
        threshold = nan if named and named[1] == "None" else float(named[1] if named else "")
        columns = [
            heads.index(head)
            for head in ("Level", "P5 Latency", "P5 Amplitude")[: 1 + 2 * has_wave]
        ]
        rows = [[float(cells[column]) for column in columns] for cells in table[1:]]
        if not marked:
            raise ValueError
    except (ValueError, IndexError):
        problem = (
            "no line 'Threshold (dB SPL): …', or no table of numbers with Level and P5 Latency"
        )
        raise _error(path, problem) from None
    reading.marked[WAVE_V if has_wave else f"{' and '.join(marked)}, no wave V"] += 1
    silent = {"exists": 0.0} if has_wave and isinf(threshold) else {}
    labels: dict[float, dict[str, Any]] = dict.fromkeys(levels, silent)
    for level, latency, amplitude in rows if has_wave else ():
        wave = {"exists": 1.0, "latency": latency, "amplitude": amplitude}
        labels[level] = wave if latency >= 0 else {"exists": 0.0}
    known = nan if isinf(threshold) else threshold
    return {level: {"threshold": known} | of_level for level, of_level in labels.items()}


def _error(path: Path, problem: str) -> DataError:
    return DataError(problem, where=str(path))
