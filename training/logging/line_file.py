"""A file of whole lines that only grows, and the error of a run folder that cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.logging.door import way


class RunFolderError(Exception):
    """A file of the run folder cannot be written; the text says which, why, and what would do."""

    def __init__(self, path: Path, fault: OSError) -> None:
        self.path = path
        self.fault = fault
        super().__init__(f"cannot write {path}: {_why(fault)}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns an OSError into a RunFolderError about `path`."""
    try:
        yield
    except OSError as fault:
        raise RunFolderError(path, fault) from fault


class LineFile:
    """Appends lines to `path`, each whole or not at all; one writer. Touches disk.

    Every line reaches the system before `write` returns, so that a killed process loses none.
    With a `door` the file is opened through it, see training/logging/door.py.
    """

    def __init__(self, path: Path, door: Path | None = None) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with naming(path):
            self._file = os.open(way(path, door), flags, 0o666)

    def write(self, line: bytes) -> None:
        """Append `line`, which holds no line break, and a line break. Raises RunFolderError."""
        with naming(self.path):
            before = os.fstat(self._file)
            if before.st_nlink == 0:
                # The system would take the line and drop it with the last handle.
                raise OSError(errno.ENOENT, "it was deleted during the run")
            self._append(line + b"\n", before.st_size)

    def close(self) -> None:
        """Give back the handle."""
        os.close(self._file)

    def _append(self, data: bytes, size_before: int) -> None:
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            with suppress(OSError):  # the first fault is the one to tell
                os.ftruncate(self._file, size_before)
            raise


def _why(fault: OSError) -> str:
    text = fault.strerror or str(fault)
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{text}; free some, or choose another folder with --out"
    if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{text}; make it writable, or choose another folder with --out"
    return text
