"""Data files: finding them, errors for what cannot be read, and bad records reported together."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Literal

from models.base import DataError
from models.common.progress import shown

OnBad = Literal["stop", "skip"]
MAX_EXAMPLES = 3
MAX_FILES = 1_000_000
FILES_CHECKED = 10_000
"""Files of a folder that are looked at to recognize its format."""
_SYSTEM_FOLDERS = tuple(map(Path, ("/dev", "/proc", "/sys")))
"""Their files are no data, and reading some of them never ends."""


def existing_path(path: str, allowed: str) -> Path:
    """The file or folder that `data.path` names. Raises DataError, which lists `allowed`."""
    found = Path(path).expanduser()
    try:
        if found.exists():
            check_kind(found)
            return found
    except OSError as error:
        raise unreadable_file(found, error) from None
    raise DataError(
        f"data.path '{path}' does not exist",
        where=f"looked for {found.absolute()}",
        allowed=allowed,
    )


def check_kind(path: Path) -> None:
    """Raise DataError for a pipe or a device, and for a whole disk, before anything is read."""
    if not path.is_file() and not path.is_dir():
        problem, allowed = "is not a regular file", "a file on disk, not a pipe or a device"
    elif path.resolve() == Path(path.resolve().anchor):
        problem, allowed = "is the whole disk", "a file, or a folder of data"
    else:
        return
    raise DataError(f"data.path '{path}' {problem}", where=str(path.absolute()), allowed=allowed)


def files(path: Path) -> list[Path]:
    """The file itself, or all files of a folder at any depth, without hidden ones, by name.

    Raises DataError where a folder cannot be read, and for too many files.
    """
    if not path.is_dir():
        return [path]

    def fail(error: OSError) -> None:
        raise unreadable_file(path, error)

    found: list[Path] = []
    with ExitStack() as stack:
        update = None
        for folder, _, names in walk(path, fail):
            found += [folder / name for name in names]
            if update is None and len(found) > FILES_CHECKED:
                update = stack.enter_context(shown(f"files in {path}", None))
            if update is not None:
                update(len(found))
            if len(found) > MAX_FILES:
                raise DataError(
                    f"'{path}' has more than {MAX_FILES:,} files",
                    where="data.path",
                    allowed="a file, or a folder of data alone",
                )
    return sorted(found, key=lambda file: file.as_posix())


def walk(
    path: Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As os.walk, sorted within each folder, without hidden entries and folders of the system.

    `onerror` gets the error of a folder that cannot be read, named from `path` on.
    """
    start = Path(os.path.abspath(path))  # `..` is resolved, links are not

    def fail(error: OSError) -> None:
        error.filename = str(path / Path(error.filename).relative_to(start))
        if onerror is not None:
            onerror(error)

    for root, folders, names in os.walk(start, onerror=fail):
        if Path(root) in _SYSTEM_FOLDERS:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in names if not name.startswith("."))
        yield path / Path(root).relative_to(start), folders, names


def first_files(path: Path) -> Iterator[Path]:
    """The file itself, or the first files of a folder; lazy, so that a large folder is not walked.

    Folders that cannot be read are left out.
    """
    found = (folder / name for folder, _, names in walk(path) for name in names)
    return islice(found, FILES_CHECKED) if path.is_dir() else iter([path])


def unreadable_file(path: Path, error: OSError) -> DataError:
    """The error for a file that the system does not open."""
    return DataError(
        f"'{error.filename or path}' cannot be read: {error.strerror or error}",
        where="data.path",
        allowed="files and folders that you may read",
    )


def unknown_embedded(path: str, names: Collection[str]) -> DataError:
    """The error for an `embedded:` name that does not exist."""
    near = get_close_matches(path, list(names), n=1, cutoff=0.0)[0]
    return DataError(
        f"unknown data.path '{path}'",
        allowed=", ".join(names),
        did_you_mean=near,
        fix=f"--data {near}",
    )


def unknown_format(path: Path, formats: Sequence[str]) -> DataError:
    """The error for data in no format that the family reads."""
    return DataError(
        f"'{path}' has an unknown format", where="data.path", allowed="; ".join(formats)
    )


_SKIP = "skip them with  --set data.on_bad=skip"


@dataclass
class BadRecords:
    """Rows, files or windows that cannot be used; `noun` is their plural."""

    noun: str = "rows"
    count: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)
    """Place and problem of the first few: a file of another kind may have millions."""

    def add(self, where: str, problem: str) -> None:
        """Count one more, at `where` (file and line)."""
        self.count += 1
        if len(self.rows) < MAX_EXAMPLES:
            self.rows.append((where, problem))

    def truncate(self, count: int) -> None:
        """Forget all but the first `count`."""
        self.count = count
        del self.rows[count:]

    def finish(self, on_bad: OnBad, num_good: int) -> int:
        """The number of skipped records. Raises DataError if there are any and `on_bad` is stop."""
        if self.count and on_bad == "stop":
            examples = self.examples()
            if self.count > MAX_EXAMPLES:
                examples.append(f"and {self.count - MAX_EXAMPLES} more")
            raise DataError(
                f"{self.count} of {self.count + num_good} {self.noun} cannot be used",
                where="\n                ".join(examples),
                fix="repair them" + (f", or {_SKIP}" if num_good else ""),  # else nothing is left
            )
        return self.count

    def examples(self) -> list[str]:
        """The first few, for the facts of the data."""
        return [f"{where}: {problem}" for where, problem in self.rows]
