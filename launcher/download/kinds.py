"""Which names are those of archives and compressed files, and what they become."""

from __future__ import annotations

from typing import Literal

Kind = Literal["zip", "tar", "gz", "bz2", "xz"]
"""zip and tar become a folder; the others, one compressed file, become that file."""
SUFFIXES: dict[str, Kind] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tbz2": "tar",
    ".tar.xz": "tar",
    ".txz": "tar",
    ".gz": "gz",
    ".bz2": "bz2",
    ".xz": "xz",
}


def split(name: str) -> tuple[str, Kind | None]:
    """The name without the suffix of its kind, and that kind; None: it is no archive."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], SUFFIXES[suffix]
    return name, None
