"""Paths that a file can have, folders that can be written or made, and room on their disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.base.diagnostics import SettingsError
from launcher.base.redaction import redact
from training.logging.quantities import size

_PATH_BYTES, _NAME_BYTES = 4095, 255
"""Source: PATH_MAX and NAME_MAX of Linux, limits.h; macOS allows no more."""
SHOWN = 40
"""Characters of an impossible path in a message."""


def problem_of(text: str) -> str | None:
    """Why no file can have the path `text`; None: one can. Reads the disk."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        return "names a user who has no home folder here"
    try:
        names = os.fsencode(os.path.abspath(path)).split(b"/")
    except UnicodeEncodeError:
        return "has a character that no file name has"
    if "\0" in path:
        return "has a null character, which no file name has"
    is_long = len(b"/".join(names)) > _PATH_BYTES or max(map(len, names)) > _NAME_BYTES
    return "is too long for a path" if is_long else None


def check_writable(
    folder: Path,
    where: str,
    *,
    noun: str = "folder",
    allowed: str = "a folder on a disk that you may write to",
    prefix: str = "",
    needed_bytes: int = 0,
) -> None:
    """Check that `folder` can be written to, or made if it is missing; creates nothing.

    Messages begin with `prefix` and call it `noun`, given at `where`; its disk must have
    `needed_bytes` free. Reads the disk. Raises SettingsError.
    """

    def error(message: str, fix: str | None = None) -> SettingsError:
        parts = {"value": str(folder), "where": where, "allowed": allowed, "fix": fix}
        return SettingsError.of(prefix + message, **parts)

    if redact(str(folder)) != str(folder):  # files in it would name the password
        raise error(f"{folder} is a URL, not a {noun}")
    try:
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        is_there = folder.exists()
    except OSError as failed:  # no permission, or the name is too long
        raise error(f"cannot open {folder}: {failed.strerror or failed}") from failed
    named = f"the {noun} {folder}" if is_there else f"cannot create the {noun} {folder}: {above}"
    if not above.is_dir():
        raise error(f"{named} is a file")
    if not os.access(above, os.W_OK | os.X_OK | (os.R_OK if is_there else 0)):
        raise error(f"{named} is not writable")
    free = shutil.disk_usage(above).free
    if free < needed_bytes:
        raise error(
            f"the {noun} {folder} needs {size(needed_bytes)}, and its disk has {size(free)} free",
            "free some space, or choose another folder with  --out DIR",
        )


@contextmanager
def new_parents(path: Path) -> Iterator[None]:
    """Make the missing folders above `path`, and remove them if the block fails. Raises OSError."""
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            try:
                parent.rmdir()
            except OSError:  # it was not made, or another program uses it by now
                break
        raise
