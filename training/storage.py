"""Atomic writes and growing files of lines in one folder, under a fence where there is one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


class StorageError(Exception):
    """A file cannot be written; the message names the file, the reason and the fix."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path = path
        self.error = error
        super().__init__(f"cannot write {path}: {_reason(error)}")


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


def publish_new(staged: Path, final: Path) -> None:
    """Give the complete file `staged` the name `final`. Raises FileExistsError if it is taken."""
    try:
        os.link(staged, final)  # unlike a rename, a link fails if the name exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if final.exists():
            raise FileExistsError(errno.EEXIST, "it exists already", str(final)) from None
        staged.replace(final)


@dataclass(frozen=True)
class Storage:
    """A folder that one process writes to. All methods touch the disk and raise OSError.

    A crash leaves each file as it was or as it will be, never half written. With a `fence`, a
    hidden folder in `path`, every file is created in it and renamed out of it: once a later
    generation of the job has renamed the fence, nothing here changes any more, also on a network
    file system that still has the old name in its cache.
    """

    path: Path
    fence: Path | None = None

    def atomic_write(self, name: str, content: bytes) -> None:
        """Replace the file `name` by `content`: write, sync, rename. Leaves nothing on failure."""
        staged = self.staged(name)
        try:
            with staged.open("wb") as file:
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

    def remove_file(self, name: str) -> None:
        """Remove the file or link `name`."""
        staged = self.staged(name)
        (self.path / name).replace(staged)
        staged.unlink()

    def open_lines(self, name: str) -> LineFile:
        """Open the file of lines `name` to append to it. Raises StorageError."""
        return LineFile(self.path / name, self.fence)

    def append_line(self, name: str, line: bytes) -> None:
        """Append one line to the file `name`. Raises StorageError."""
        file = self.open_lines(name)
        try:
            file.write(line)
        finally:
            file.close()

    def staged(self, name: str) -> Path:
        """The path at which the file `name` is created before it is renamed."""
        final = self.path / name
        return (self.fence or final.parent) / f".{final.name}.new"

    def staging_folder(self, subfolder: str = "") -> Path:
        """The folder for what has no final name yet: the fence, or `subfolder` without a fence."""
        return self.fence or self.path / subfolder


class LineFile:
    """A file that grows by whole lines; one writer. Touches the disk.

    Every line has reached the operating system when `write` returns, so that a killed process loses
    none. With a `fence` the file is opened through it: without the fence there is no such path.
    """

    def __init__(self, path: Path, fence: Path | None = None) -> None:
        """Open `path`, and create it if needed. Raises StorageError."""
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with storage_errors(path):
            opened = path if fence is None else fence / ".." / path.name
            self._file = os.open(opened, flags, 0o666)

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
        """Close the file."""
        os.close(self._file)


def atomic_write(path: Path, content: bytes) -> None:
    """Replace the file `path` by `content`: write, sync, rename. Touches the disk. Raises OSError.

    Leaves nothing behind on failure.
    """
    Storage(path.parent).atomic_write(path.name, content)


def sync(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power. Touches the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.EDQUOT:
        return f"{reason}; delete some of your files, or choose another folder with --out"
    if error.errno == errno.ENOSPC:
        return f"{reason}; free some space, or choose another folder with --out"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{reason}; make it writable, or choose another folder with --out"
    return reason
