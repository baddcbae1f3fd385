"""Puts what was fetched into its place: moved there, or unpacked beside it and moved."""

from __future__ import annotations

import shutil
from pathlib import Path

from launcher.base.diagnostics import SettingsError
from launcher.download import presence, unpack
from launcher.download.part import Part
from launcher.download.record import Finished
from launcher.download.targets import Target
from launcher.download.terms import Terms

_OF_MACOS = "__MACOSX"
"""What its program for zip files adds: attributes that no other system reads."""


def put(target: Target, part: Part, terms: Terms) -> Finished:
    """Move or unpack `part` to `target.path`, in place of what was fetched there before.

    What is remembered of it. The place holds all of it or nothing of it. Raises SettingsError for
    an archive that is broken or not safe, of which nothing stays. Touches the disk.
    """
    if target.kind is None:
        known = _moved(target, part, part.path)
        part.discard()
        return known
    new = target.state / f"{target.name}.unpacking"
    _remove(new)  # an earlier one that was killed
    try:
        unpack.unpack(part.path, target, new, terms)
        known = _moved(target, part, _content(new))
    except SettingsError:
        part.discard()
        raise
    finally:
        _remove(new)
    part.discard()
    return known


def _content(new: Path) -> Path:
    """What becomes the place: of a folder that holds one folder and nothing else, that one."""
    if not new.is_dir():
        return new
    found = [path for path in new.iterdir() if path.name != _OF_MACOS]
    is_one = len(found) == 1 and found[0].is_dir() and not found[0].is_symlink()
    return found[0] if is_one else new


def _moved(target: Target, part: Part, new: Path) -> Finished:
    """`new` in its place. Who is killed here leaves what the next start knows for its own."""
    known = presence.account(target, part, new)
    if not target.path.exists():
        presence.remember(target, known)
        new.replace(target.path)
        return known
    old = target.state / f"{target.name}.old"
    _remove(old)
    if target.path.is_dir():  # no system replaces a folder at once
        target.path.replace(old)
    new.replace(target.path)
    presence.remember(target, known)
    _remove(old)
    return known


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
