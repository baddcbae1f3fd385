"""Paths that a file can have, folders that can be written or made, and room on their disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.base.redaction import redact
from gearshift.training.logging.encoding import size

SHOWN = 40
"""Characters of an impossible path in a message."""


def problem_of(text: str) -> str | None:
    """Why no file can have the path `text`; None: one can. Reads the disk."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        return "names a user who has no home folder here"
    try:
        os.lstat(path)
    except ValueError:
        return "has a character that no file name has"
    except OSError as error:
        return "is too long for a path" if error.errno == errno.ENAMETOOLONG else None
    return None


def check_writable(
    folder: Path,
    where: str,
    *,
    allowed: str = "a folder on a disk that you may write to",
    needed_bytes: int = 0,
) -> None:
    """Check that `folder`, given at `where`, can be written to, or made if it is missing.

    Creates nothing. Its disk must have `needed_bytes` free. Reads the disk. Raises SettingsError.
    """
    problem = None
    hint = None
    try:
        mode = os.W_OK | os.X_OK | (os.R_OK if folder.exists() else 0)
        above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(above).free
        if redact(str(folder)) != str(folder):  # files in it would name the password
            problem = "it is a URL"
        elif not above.is_dir():
            problem = f"{above} is a file"
        elif not os.access(above, mode):
            problem = f"{above} is not writable"
        elif free < needed_bytes:
            problem = f"it needs {size(needed_bytes)}, and its disk has {size(free)} free"
            hint = "free some space, or choose another folder with  --out DIR"
    except OSError as error:  # no permission, or the name is too long
        problem = error.strerror or str(error)
    if problem is not None:
        raise SettingsError.of(
            f"cannot write to {folder}: {problem}",
            value=str(folder),
            where=where,
            allowed=allowed,
            hint=hint,
        )


@contextmanager
def writing(path: Path, where: str, **parts: str) -> Iterator[None]:
    """Raise SettingsError, with its `parts`, where the block cannot write the file or folder."""
    try:
        yield
    except OSError as error:
        problem = f"cannot write {error.filename or path}: {error.strerror or error}"
        raise SettingsError.of(problem, value=str(path), where=where, **parts) from error


@contextmanager
def new_parents(path: Path) -> Iterator[None]:
    """Make the missing folders above `path`, and remove them if the block fails. Raises OSError."""
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # it was not made, or another program uses it by now
            for parent in missing:
                parent.rmdir()
        raise
