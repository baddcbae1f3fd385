"""The file or folder that `data.path` names."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path

from models.base import DataError


def existing(path: str, allowed: str) -> Path:
    """The file or folder at `path`. Raises DataError, with `legal` as what may stand there."""
    found = Path(path).expanduser()
    try:
        if found.exists():
            return found
    except OSError as error:
        raise unreadable(found, error) from None
    raise DataError(
        f"data.path '{path}' does not exist",
        where=f"looked for {found.absolute()}",
        allowed=allowed,
    )


def files(path: Path) -> list[Path]:
    """The file itself, or all files of a folder at any depth, hidden ones left out, by name.

    Raises DataError where one may not be looked at.
    """
    if not path.is_dir():
        return [path]

    def fail(error: OSError) -> None:
        raise unreadable(path, error)

    found = []
    for root, folders, names in os.walk(path, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.as_posix())


def unreadable(path: Path, error: OSError) -> DataError:
    """What to tell of a file that the system does not open."""
    return DataError(
        f"'{error.filename or path}' cannot be read: {error.strerror or error}",
        where="data.path",
        allowed="files and folders that you may read",
    )


def unknown_embedded(path: str, names: Collection[str]) -> DataError:
    """What to tell of an `embedded:` name that there is not."""
    near = get_close_matches(path, list(names), n=1, cutoff=0.0)[0]
    return DataError(
        f"data.path '{path}' is not known",
        allowed=", ".join(names),
        fix=f"nearest  {near}; write  --data {near}",
    )


def no_format(path: Path, formats: Sequence[str]) -> DataError:
    """What to tell of data in no format that the family reads."""
    return DataError(
        f"'{path}' is in no format that is known here",
        where="data.path",
        allowed="; ".join(formats),
    )
