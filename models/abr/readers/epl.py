"""EPL text: level series of the EPL test suite, with the peaks that raters marked."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from glob import escape
from math import ceil, isinf, nan
from pathlib import Path

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
ENCODING = "iso-8859-1"
_LEVELS = r"LEVELS:\s*([-\d.;\s]+)"
_STEP = r"SAMPLE \([^)]*sec\):\s*([\d.]+)"
_RATE = r"REP RATE[^:]*:\s*([\d.]+)"
_RUN = r":RUN-(\d+)"
_THRESHOLD = r"(?m)^Threshold \(dB SPL\):\s*(\S+)"


def read(
    path: Path,
    name: str,
    reading: ResponseReading,
) -> Iterator[ResponseRow]:
    """A row for each level, or for each level and rater. Reads the disk.

    `name`, the file in its folder, without the run is the group: ABR-52-3 is run 3 of ABR-52.
    Levels that are all zero are left out. Problems are added to the bad records.
    """
    try:
        levels, traces, samples, rate, run = _series(path)
        labels = []
        if reading.has_labels:
            # Each rater has a file beside the series: ABR-52-3-16.00kHz-NAME-analyzed.txt.
            raters = path.parent.glob(f"{escape(path.name)}-*analyzed.txt")
            labels = [_labels(other, levels) for other in sorted(raters)]
    except OSError as error:
        reading.bad_records.add(name, unreadable_file(path, error).message)
    except DataError as error:
        reading.bad_records.add(error.where, error.message)
    else:
        animal = name.removesuffix(f"-{run}")
        for level, trace in zip(levels, traces.T, strict=True):
            if not trace.any():
                reading.left_out["silent_levels"] += 1
                continue
            signal = resample(trace, samples)
            where = f"{name}, level {level:g} dB"
            for by_level in labels or [{}]:
                known = {"level": level, "rate": rate, **by_level.get(level, {})}
                yield ResponseRow(animal, where, signal, known)


def _field(
    pattern: str,
    text: str,
) -> str:
    """The first group of `pattern` in `text`; empty where it does not match."""
    return next(iter(re.findall(pattern, text)), "")


def _series(path: Path) -> tuple[list[float], np.ndarray, float, float, str]:
    """Levels, traces [sample, level] in the window, its samples, stimuli a second, and the run."""
    header, *others = re.split(r"DATA[ \t]*\n", path.read_text(ENCODING))
    if len(others) != 1:
        raise _error(path, "no line DATA after the header, or more than one: a file has one series")
    try:
        levels = [float(level) for level in _field(_LEVELS, header).split(";") if level.strip()]
        step_ms = float(_field(_STEP, header) or 0) / 1000
        rate = float(_field(_RATE, header) or nan)
        if not levels or not step_ms > 0 or not others[0].strip():
            raise _error(path, "no :LEVELS:, no interval SAMPLE (…sec):, or nothing after DATA")
        samples = WINDOW_MS / step_ms
        # What comes after the window is not read.
        lines = list(filter(str.strip, others[0].split("\n")))
        traces = np.loadtxt(lines[: ceil(samples)], ndmin=2)
    except (ValueError, OverflowError):
        raise _error(
            path, "the data has a value that is no number, or rows of several lengths"
        ) from None
    whole = (int(samples), len(levels))
    if len(traces) < whole[0] or traces.shape[1] != whole[1]:
        raise _error(path, f"truncated: {traces.shape} of {whole} samples and levels")
    return levels, traces, samples, rate, _field(_RUN, header)


def _labels(
    path: Path,
    levels: list[float],
) -> dict[float, dict[str, float]]:
    """The labels of each level by one rater; a negative latency, or an infinite threshold: no wave.

    A rater of other peaks says nothing about wave V.
    """
    text = path.read_text(ENCODING)
    lines = [line.strip() for line in text.split("\n") if "\t" in line]
    table = csv.DictReader(lines, delimiter="\t")
    try:
        threshold = float(_field(_THRESHOLD, text).replace("None", "nan"))
        of_all = {"threshold": nan if isinf(threshold) else threshold}
        # Without wave V among the marked peaks, nothing is known of it.
        if "P5 Latency" not in (table.fieldnames or ()):
            return dict.fromkeys(levels, of_all)
        if isinf(threshold):
            of_all["exists"] = 0.0
        labels = dict.fromkeys(levels, of_all)
        for row in table:
            latency = float(row["P5 Latency"])
            wave = {"exists": 0.0}
            if latency >= 0:
                amplitude = float(row["P5 Amplitude"])
                wave = {"exists": 1.0, "latency": latency, "amplitude": amplitude}
            labels[float(row["Level"])] = of_all | wave
    except (ValueError, KeyError, TypeError):
        raise _error(
            path,
            "no line 'Threshold (dB SPL): …', or a table without Level, or one not of numbers",
        ) from None
    return labels


def _error(
    path: Path,
    problem: str,
) -> DataError:
    return DataError(problem, where=str(path))
