"""A recording in EDF+ written byte by byte, as the tests need it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

RATE = 10_000
RANGE_UV = 500.0


def write_edf(
    path: Path,
    seconds: Iterable[tuple[np.ndarray, list[tuple[float, str]]]],
    rate: int = RATE,
    room: int = 1_000,
) -> Path:
    """Each second: [rate] samples in µV, and the onset and text of its annotations.

    `room`, an even number, is the bytes of a second's annotations.
    Source: Kemp and Olivan, European data format 'plus', 2003.
    """
    with path.open("wb") as file:
        file.write(b" " * 768)
        records = 0
        for records, (signal, events) in enumerate(seconds, start=1):
            file.write((signal / RANGE_UV * 32767).astype("<i2").tobytes())
            tal = f"+{records - 1}\x14\x14\0"
            tal += "".join(f"+{onset:.4f}\x14{text}\x14\0" for onset, text in events)
            file.write(tal.encode().ljust(room, b"\0"))
        file.seek(0)
        file.write(_head(records, rate, room // 2))
    return path


def _head(records: int, rate: int, tals: int) -> bytes:
    def column(width: int, *values: object) -> str:
        return "".join(str(value).ljust(width) for value in values)

    head = column(8, 0) + column(80, "X X X X", "Startdate X X X X")
    head += column(8, "01.01.01", "01.01.01", 768) + column(44, "EDF+C")
    head += column(8, records, 1) + column(4, 2)
    head += column(16, "Cz", "EDF Annotations") + column(80, "", "") + column(8, "uV", "")
    head += column(8, -RANGE_UV, -1) + column(8, RANGE_UV, 1)
    head += column(8, -32767, -32768) + column(8, 32767, 32767)
    head += column(80, "", "") + column(8, rate, tals) + column(32, "", "")
    return head.encode("ascii")
