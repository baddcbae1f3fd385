"""A file of JSON lines that another process appends to, read as far as it has grown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any


class Replaced(Exception):
    """The file is no longer the one that was opened: its run is another process's by now."""


class Growing:
    """The lines of `path`, each once. Touches disk."""

    def __init__(self, path: Path) -> None:
        """The file may come to be later."""
        self._path = path
        self._file: IO[bytes] | None = None
        self._read = 0

    def lines(self, upto: int) -> list[dict[str, Any]]:
        """Those that are whole before byte `upto` and were not given before.

        Raises Replaced, and OSError.
        """
        if upto <= self._read:
            return []
        if self._file is None:
            self._file = self._path.open("rb")
        if self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            raise Replaced
        data = self._file.read(upto - self._read)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self._file.seek(self._read)
        found = (json.loads(line) for line in whole.splitlines())
        return [line for line in found if isinstance(line, dict)]
