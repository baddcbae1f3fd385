"""The file or folder that `data.path` names."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from models.base import DataError


def existing_path(path: str, allowed: str) -> Path:
    """The file or folder at `path`. Raises DataError, with `legal` as what may stand there."""
    found = Path(path).expanduser()
    try:
        if found.exists():
            return found
    except OSError as error:
        raise unreadable_file(found, error) from None
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
        raise unreadable_file(path, error)

    found = []
    for root, folders, names in os.walk(path, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda file: file.as_posix())


def unreadable_file(path: Path, error: OSError) -> DataError:
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
        did_you_mean=near,
        fix=f"--data {near}",
    )


def unknown_format(path: Path, formats: Sequence[str]) -> DataError:
    """What to tell of data in no format that the family reads."""
    return DataError(
        f"'{path}' is in no format that is known here",
        where="data.path",
        allowed="; ".join(formats),
    )


OnBad = Literal["stop", "skip"]
SHOWN = 3


@dataclass
class BadRecords:
    """Rows, files or windows that cannot be used; `noun` names them in the plural."""

    noun: str = "rows"
    count: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)
    """The first few: a file of another kind may have millions."""

    def add(self, where: str, what: str) -> None:
        """One more, at `where` (file and line)."""
        self.count += 1
        if len(self.rows) < SHOWN:
            self.rows.append((where, what))

    def truncate(self, count: int) -> None:
        """Forget all but the first `count`."""
        self.count = count
        del self.rows[count:]

    def finish(self, on_bad: OnBad, read: int) -> int:
        """How many were left out. Raises DataError if there are any and `on_bad` is stop.

        `read` counts those that can be used.
        """
        if self.count and on_bad == "stop":
            examples = self.examples()
            if self.count > SHOWN:
                examples.append(f"and {self.count - SHOWN} more")
            raise DataError(
                f"{self.count} of {self.count + read} {self.noun} cannot be used",
                where="\n           ".join(examples),
                fix="repair them, or leave them out with  --set data.on_bad=skip",
            )
        return self.count

    def examples(self) -> list[str]:
        """The first few, for the facts of the data."""
        return [f"{where}: {what}" for where, what in self.rows]
