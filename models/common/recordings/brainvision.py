"""BrainVision recordings whose markers are not UTF-8: MNE opens those in the locale's encoding."""

from __future__ import annotations

import re
import tempfile
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from models.base import DataError
from models.common.text_file import wide_without_mark

SUFFIXES = (".vhdr", ".ahdr")
_NAMED = re.compile(r"^(DataFile|MarkerFile)=(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_FACTS = re.compile(
    r"^(DataFormat|BinaryFormat|NumberOfChannels|DataPoints)=(.*?)\s*$",
    re.MULTILINE | re.IGNORECASE,
)
_WIDTHS = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4, "IEEE_FLOAT_64": 8}
"""Bytes of a value."""
_CODEPAGE = re.compile(r"^Codepage=(.*?)\s*$", re.MULTILINE | re.IGNORECASE)


@contextmanager
def readable(path: Path) -> Iterator[tuple[Path, str]]:
    """The header that MNE can read, and a note: `path`, or a copy in UTF-8 that names its files.

    Reads the disk; the copy is temporary. Raises OSError, LookupError, DataError.
    """
    header = path.read_bytes()
    names = {key.lower(): name for key, name in _NAMED.findall(_decoded(header)[0])}
    _check_size(path, _decoded(header)[0], names)
    markers = path.parent / names.get("markerfile", "").replace("$b", path.stem)
    if not markers.is_file():
        yield path, ""
        return
    text, encoding = _decoded(markers.read_bytes())
    if encoding == "utf-8":
        yield path, ""
        return
    with tempfile.TemporaryDirectory(prefix="gearshift-") as folder:
        copy, copied_markers = Path(folder) / path.name, Path(folder) / markers.name
        copied_markers.write_text(_as_utf8(text), encoding="utf-8")
        data = path.parent.resolve() / names.get("datafile", "").replace("$b", path.stem)
        places = {"datafile": str(data), "markerfile": str(copied_markers)}
        text = _NAMED.sub(lambda m: f"{m[1]}={places[m[1].lower()]}", _decoded(header)[0])
        copy.write_text(_as_utf8(text), encoding="utf-8")
        yield copy, f"its markers are read as {encoding}"


def _check_size(path: Path, header: str, names: dict[str, str]) -> None:
    """Raise DataError if the samples are not all that the header names; MNE drops a cut one."""
    facts = {key.lower(): value for key, value in _FACTS.findall(header)}
    data = path.parent / names.get("datafile", "").replace("$b", path.stem)
    width = _WIDTHS.get(facts.get("binaryformat", "INT_16").upper())
    channels = facts.get("numberofchannels", "")
    if facts.get("dataformat", "").upper() != "BINARY" or width is None:
        return
    if not channels.isdecimal() or not int(channels) or not data.is_file():
        return  # MNE says what is wrong with it
    size, sample = data.stat().st_size, width * int(channels)
    points = facts.get("datapoints", "")
    expected = (
        sample * int(points) if points.isdecimal() and int(points) else size // sample * sample
    )
    if size != expected:
        cut = f", or cut it:  truncate -s {expected} {quote(str(data))}" if size > expected else ""
        raise DataError(
            f"'{data.name}' has {size} bytes: {int(channels)} channels of {width} bytes, "
            f"{points or 'whole'} samples have {expected}",
            where=str(path),
            allowed="the samples that the header names",
            fix=f"copy it again{cut}",
        )


def _decoded(data: bytes) -> tuple[str, str]:
    """Text and its encoding: that of the line Codepage, or else UTF-8 or Latin-1."""
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return data.decode("utf-16"), "UTF-16"
    if wide := wide_without_mark(data):
        return data.decode(wide), wide.upper()
    named = _CODEPAGE.search(data.decode("ascii", "ignore"))
    codepage = "utf-8" if named is None else named[1].lower()
    for encoding in ("cp1252" if codepage == "ansi" else codepage, "utf-8"):
        try:
            return data.decode(encoding), "utf-8" if data.isascii() else encoding
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1"), "Latin-1"


def _as_utf8(text: str) -> str:
    return _CODEPAGE.sub("Codepage=UTF-8", text)
