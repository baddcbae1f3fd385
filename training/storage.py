"""Atomic writes, growing files of lines and reading of JSON in one folder, whoever made it."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# Bounds of a JSON file and of a line, far above those that a run writes.
MOST_BYTES = 1 << 28
_MOST_LINE_BYTES = 1 << 24
_MOST_LEVELS = 64
_MOST_DIGITS = 40
_FIXES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space")
_FIXES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable")
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class StorageError(Exception):
    """A file cannot be written; the message names the file, the reason and the fix."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path = path
        self.error = error
        reason = error.strerror or str(error)
        fix = _FIXES.get(error.errno or 0)
        if fix is not None:
            reason = f"{reason}; {fix}, or choose another folder with --out"
        super().__init__(f"cannot write {path}: {reason}")


def disk_error(error: BaseException) -> StorageError | None:
    """`error` as a StorageError, if only a disk that is full or read-only raises it; or None."""
    if isinstance(error, OSError) and error.errno in _OF_DISKS:
        return StorageError(Path(error.filename or "a file"), error)
    return None


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(path, error) from error


def is_file(path: Path) -> bool:
    """As Path.is_file, which since Python 3.14 is silent where this user may not look.

    Raises PermissionError there.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file, or make it if the `flags` say so; no link is followed. Raises OSError.

    A pipe or device could block, and what a link leads to is not of the folder.
    """
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def open_to_read(path: Path) -> IO[bytes]:
    return os.fdopen(open_regular(path, os.O_RDONLY), "rb")


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """The lines from here to half a line at the end, or to a line that is too long to be one."""
    while True:
        line = file.readline(_MOST_LINE_BYTES)
        if not line.endswith(b"\n"):
            return
        yield line


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, and ValueError where it is too large."""
    with open_to_read(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        return file.read()


def read_json(path: Path) -> Any:
    """The JSON in a regular file. Raises OSError, and ValueError as parse_json."""
    return parse_json(read_regular(path))


def _integer(text: str) -> int:
    """A whole number that a float can hold; another would raise where it is shown or divided."""
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def parse_json(content: str | bytes) -> Any:
    """The value in JSON.

    Raises ValueError if it is none, has too many levels or too large a number.
    """
    try:
        value = json.loads(content, parse_int=_integer)
        levels = _levels(value)
    except RecursionError:
        raise ValueError("too many levels") from None
    if levels > _MOST_LEVELS:
        raise ValueError("too many levels")
    return value


def _levels(value: Any) -> int:
    """How many lists and objects of JSON are in each other; 0: `value` is neither."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return 1 + max(map(_levels, value), default=0)


def publish_new(staged: Path, final: Path) -> None:
    """Give the complete file `staged` the name `final`. Raises FileExistsError if it is taken."""
    try:
        os.link(staged, final)  # unlike a rename, a link fails if the name exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if final.exists():
            raise FileExistsError(
                errno.EEXIST,
                "it exists already",
                str(final),
            ) from None
        staged.replace(final)


@dataclass(frozen=True)
class Storage:
    """A folder that one process writes to. All methods touch the disk and raise OSError.

    A crash leaves each file as it was or as it will be, never half written.
    """

    path: Path
    check: Callable[[], None] = lambda: None
    """Raises OSError if this process may no longer write here; called before a file is replaced."""

    def atomic_write(self, name: str, content: bytes) -> None:
        """Replace the file `name` by `content`: write, sync, rename. Leaves nothing on failure."""
        self.check()
        staged = self.staged(name)
        try:
            with open_staged(staged) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self.path / name)
        except OSError:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            raise

    def atomic_link(self, name: str, target: str) -> None:
        """Let the symbolic link `name` point to the folder `target`, and sync the name."""
        staged = self.staged(name)
        staged.unlink(missing_ok=True)
        staged.symlink_to(target, target_is_directory=True)
        staged.replace(self.path / name)
        sync(self.path)

    def open_lines(self, name: str) -> LineFile:
        """Open the file of lines `name` to append to it. Raises StorageError."""
        return LineFile(self.path / name)

    def append_line(self, name: str, line: bytes) -> None:
        """Append one line to the file `name`. Raises StorageError."""
        with closing(self.open_lines(name)) as file:
            file.write(line)

    def staged(self, name: str) -> Path:
        """The path at which the file `name` is created before it is renamed."""
        final = self.path / name
        return final.parent / f".{final.name}.new"


class LineFile:
    """A file that grows by whole lines; one writer. Touches the disk.

    Every line has reached the operating system when `write` returns, so that a killed process loses
    none.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, and create it if needed. Raises StorageError."""
        self.path = path
        with storage_errors(path):
            self._file = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, line: bytes) -> None:
        """Append `line`, which has no line break, and a line break. Raises StorageError."""
        data = line + b"\n"
        with storage_errors(self.path):
            before = os.fstat(self._file)
            if before.st_nlink == 0:
                # The system would accept the line and drop it with the last handle.
                raise OSError(errno.ENOENT, "it was deleted during the run")
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError:
                with suppress(OSError):  # the first error is the one to report
                    os.ftruncate(self._file, before.st_size)
                raise

    def close(self) -> None:
        os.close(self._file)


def open_staged(staged: Path) -> IO[bytes]:
    """A new file under a temporary name; one that a kill left is removed. Raises OSError."""
    staged.unlink(missing_ok=True)
    return staged.open("xb")


def atomic_write(path: Path, content: bytes) -> None:
    """Replace the file `path` by `content`: write, sync, rename. Touches the disk. Raises OSError.

    Leaves nothing behind on failure.
    """
    Storage(path.parent).atomic_write(path.name, content)


def write_file(path: Path, content: bytes) -> None:
    """As atomic_write. Raises StorageError."""
    with storage_errors(path):
        atomic_write(path, content)


def sync(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power. Touches the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
