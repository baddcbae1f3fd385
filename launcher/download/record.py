"""What is remembered of a file beside it: where it came from, and by what it is known again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from training.storage import atomic_write

_TEXT = (str, NoneType)


@dataclass(frozen=True)
class Stamp:
    """By what a server tells one state of a file from another; both may be None."""

    etag: str | None = None
    modified: str | None = None

    @property
    def strong(self) -> str | None:
        """What If-Range takes; None: nothing tells states apart to the byte.

        Source: RFC 9110, section 13.1.5: no weak entity tag.
        """
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


@dataclass(frozen=True)
class Unfinished:
    """Of a file that has not all come."""

    url: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def stamp(self) -> Stamp:
        """The state of the file that it is a part of."""
        return Stamp(self.etag, self.modified)


@dataclass(frozen=True)
class Finished:
    """Of a file that is there."""

    url: str
    sha256: str
    """Of what was fetched, before it was unpacked."""
    size: int
    """Its bytes."""
    changed_ns: int
    """When what lies there was last changed, as the file system has it."""
    etag: str | None = None
    modified: str | None = None

    @property
    def stamp(self) -> Stamp:
        """The state of the file that was fetched."""
        return Stamp(self.etag, self.modified)


def save(path: Path, record: Unfinished | Finished) -> None:
    """Write it, whole or not at all. Touches the disk."""
    atomic_write(path, (json.dumps(asdict(record), indent=1) + "\n").encode())


def unfinished(path: Path) -> Unfinished | None:
    """What `save` wrote; None where nothing usable is there. Reads the disk."""
    found = _read(path, {"url": (str,), "etag": _TEXT, "modified": _TEXT, "total": (int, NoneType)})
    return None if found is None else Unfinished(**found)


def finished(path: Path) -> Finished | None:
    """What `save` wrote; None where nothing usable is there. Reads the disk."""
    needed = {"url": (str,), "sha256": (str,), "size": (int,), "changed_ns": (int,)}
    found = _read(path, {**needed, "etag": _TEXT, "modified": _TEXT})
    return None if found is None else Finished(**found)


def _read(path: Path, types: Mapping[str, tuple[type, ...]]) -> dict[str, Any] | None:
    """The fields of a record, each of one of its `types`."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    told = {name: found.get(name) for name in types}
    return told if all(type(told[name]) in kinds for name, kinds in types.items()) else None
