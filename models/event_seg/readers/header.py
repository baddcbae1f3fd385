"""The text that begins a Prophesee file: encoding, size of the sensor, and where events begin."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from models.base import DataError
from models.common.paths import unreadable

LONGEST = 65536
"""Bytes that are looked through for the end of the header."""
ENCODINGS = ("EVT2", "EVT3", "DAT")
_LEGAL = "% evt 2.0, % evt 3.0, % format EVT2, % format EVT3, or the header of a DAT file"


@dataclass(frozen=True)
class Header:
    """What the first lines tell."""

    encoding: str
    """One of ENCODINGS."""
    begin: int
    """Bytes before the first event."""
    sensor: tuple[int, int] | None
    """Height and width; None: not told."""


def read(path: Path) -> Header:
    """The header of a file. Reads its beginning; raises DataError if it is none that is known."""
    try:
        with path.open("rb") as file:
            start = file.read(LONGEST)
    except OSError as error:
        raise unreadable(path, error) from None
    found = parse(start, is_dat=path.suffix.lower() == ".dat")
    if found is None:
        told = "no encoding that is known" if start.startswith(b"%") else "no header"
        raise DataError(
            f"'{path.name}' has {told} of a Prophesee recording", where=str(path), allowed=_LEGAL
        )
    return found


def parse(start: bytes, *, is_dat: bool) -> Header | None:
    """The header in the first bytes of a file; None if there is none that is known.

    Lines begin with a per cent sign and a blank, the last one may be `% end`. In a DAT file two
    bytes follow, the kind and the size of an event.
    """
    lines, at = [], 0
    while start[at : at + 1] == b"%" and start[at + 1 : at + 2] in (b" ", b"\n", b"\r"):
        stop = start.find(b"\n", at)
        if stop < 0:
            return None
        lines.append(start[at + 1 : stop].decode("latin-1").strip())
        at = stop + 1
        if lines[-1] == "end":
            break
    if not lines:
        return None
    encoding = "DAT" if is_dat else _encoding(lines)
    if encoding is None:
        return None
    if encoding == "DAT":
        # Kind 0x00 or 0x0C are changes; each event has eight bytes.
        if start[at : at + 1] not in (b"\x00", b"\x0c") or start[at + 1 : at + 2] != b"\x08":
            return None
        at += 2
    return Header(encoding, at, _sensor("\n".join(lines)))


def _encoding(lines: list[str]) -> str | None:
    for line in lines:
        if match := re.match(r"(?:evt |format EVT)([23])(?:\.0)?\b", line):
            return f"EVT{match[1]}"
    return None


def _sensor(text: str) -> tuple[int, int] | None:
    if match := re.search(r"^geometry (\d+)x(\d+)", text, re.MULTILINE):
        return int(match[2]), int(match[1])
    height = re.search(r"\bheight[= ](\d+)", text, re.IGNORECASE)
    width = re.search(r"\bwidth[= ](\d+)", text, re.IGNORECASE)
    return (int(height[1]), int(width[1])) if height and width else None
