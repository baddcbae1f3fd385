"""What a rater marked in a level series: the threshold, and wave V of each level."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import nan
from pathlib import Path

from models.base import DataError
from models.common.paths import unreadable

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
        raise unreadable(path, error) from None
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
