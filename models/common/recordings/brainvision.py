"""BrainVision recordings whose markers are not UTF-8: MNE opens those in the locale's encoding."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIXES = (".vhdr", ".ahdr")
_NAMED = re.compile(r"^(DataFile|MarkerFile)=(.*?)\s*$", re.MULTILINE | re.IGNORECASE)
_CODEPAGE = re.compile(r"^Codepage=(.*?)\s*$", re.MULTILINE | re.IGNORECASE)


@contextmanager
def readable(path: Path) -> Iterator[tuple[Path, str]]:
    """The header that MNE can read, and a note: `path`, or a copy in UTF-8 that names its files.

    Reads the disk; the copy is temporary. Raises OSError, LookupError.
    """
    header = path.read_bytes()
    names = {key.lower(): name for key, name in _NAMED.findall(_decoded(header)[0])}
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


def _decoded(data: bytes) -> tuple[str, str]:
    """Text and its encoding: that of the line Codepage, or else UTF-8 or Latin-1."""
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
