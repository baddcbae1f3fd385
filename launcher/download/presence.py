"""Whether a file is there already, known again by its checksum or by what was remembered of it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from launcher.base.diagnostics import SettingsError
from launcher.download import record
from launcher.download.errors import refused
from launcher.download.part import Part
from launcher.download.record import Finished
from launcher.download.targets import Target

_PIECE = 1 << 20


def find(target: Target) -> Finished | None:
    """What is remembered of the file that lies in the target's place; None: it is to be fetched.

    Raises SettingsError where something else lies there, for nothing of a person's own is ever
    replaced. Reads the disk.
    """
    if not target.path.exists():
        return None
    declared = target.file.sha256
    known = record.finished(_record(target))
    if known is None:
        return _adopted(target)
    if _changed_ns(target.path) != known.changed_ns:
        known = _touched(target, known)
    if declared is not None and declared.lower() == known.sha256:
        return known
    if known.url != target.file.url:
        raise _taken(target, f"was fetched from {known.url}")
    return known if declared is None else None


def account(target: Target, part: Part, new: Path) -> Finished:
    """What there is to remember of `new`, which comes to lie in the target's place. Reads disk."""
    stamp = part.stamp
    return Finished(
        url=str(target.file.url),
        sha256=part.sha256,
        size=part.size,
        changed_ns=_changed_ns(new),
        etag=stamp.etag,
        modified=stamp.modified,
    )


def remember(target: Target, known: Finished) -> None:
    """Write down what lies in the target's place. Touches the disk."""
    record.save(_record(target), known)


def _adopted(target: Target) -> Finished:
    """A file that was put there by other means, and is the one that is declared."""
    declared = target.file.sha256
    if target.kind is not None or declared is None or not target.path.is_file():
        raise _taken(target, "is there, and was not fetched by us")
    if (found := _sha256(target.path)) != declared.lower():
        raise _taken(target, f"is there, and has the checksum {found}")
    about = target.path.stat()
    known = Finished(str(target.file.url), found, about.st_size, about.st_mtime_ns)
    return _remembered(target, known)


def _touched(target: Target, known: Finished) -> Finished:
    """A file whose date changed, and whose content did not."""
    if target.kind is not None or _sha256(target.path) != known.sha256:
        raise _taken(target, "was changed since it was fetched")
    return _remembered(target, replace(known, changed_ns=_changed_ns(target.path)))


def _remembered(target: Target, known: Finished) -> Finished:
    """`known`, written down where that can be; else the file is read again the next time."""
    with suppress(OSError):
        target.state.mkdir(exist_ok=True)
        remember(target, known)
    return known


def _taken(target: Target, why: str) -> SettingsError:
    return refused(
        f"{target.path} {why}",
        target.file.url,
        fix=f"name another folder with  download.folder: DIR  or remove {target.path}",
    )


def _record(target: Target) -> Path:
    return target.state / f"{target.path.name}.record.json"


def _changed_ns(path: Path) -> int:
    """When a file was last changed; of folders nothing tells it."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()
