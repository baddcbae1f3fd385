"""Cached features on disk: rows of arrays in the .npy format, complete or absent."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

_FACTS = "made_from.json"
_LOCK = "lock"


@dataclass(frozen=True)
class Form:
    """The dtype of an array, and the shape of a row."""

    dtype: str
    """In numpy notation, such as "<f4"."""
    row: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * prod(self.row)


class Rows:
    """Rows by number, mapped from disk on access; can be pickled for other processes."""

    def __init__(self, folder: Path) -> None:
        """Reads the heads of the files. Raises OSError, or ValueError for an incomplete file."""
        self._arrays: dict[str, tuple[Path, Form, int]] = {}
        for path in sorted(folder.glob("*.npy")):
            form, count, start = _head(path)
            if path.stat().st_size != start + count * form.row_bytes:
                raise ValueError(f"{path} is incomplete")
            self._arrays[path.stem] = path, form, start

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A copy of row `number` of each array."""
        rows = {}
        for name, (path, form, start) in self._arrays.items():
            offset = start + number * form.row_bytes
            # Mapped per row: pages of a permanent mapping would count as memory of this process.
            rows[name] = np.array(np.memmap(path, form.dtype, "r", offset, form.row))
        return rows


def read(folder: Path) -> Rows | None:
    """The rows in `folder`; None: there are none, or they are incomplete. Touches disk."""
    try:
        return Rows(folder) if (folder / _FACTS).is_file() else None
    except (OSError, ValueError):
        return None


class FeatureDraft:
    """Arrays being written, in a temporary folder beside the final one; made by one rank.

    Deletes drafts of killed processes, whose locks are free.
    """

    def __init__(self, final: Path, forms: Mapping[str, Form], count: int) -> None:
        """Creates files of full size without content. Raises OSError."""
        final.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{final.name}-"
        for left in final.parent.glob(f"{prefix}*"):
            with suppress(OSError):
                if lock := _locked((left / _LOCK).open("r+b")):
                    shutil.rmtree(left, ignore_errors=True)
                    lock.close()
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
        self._final = final
        self._lock = _locked((self.folder / _LOCK).open("wb"))
        for name, form in forms.items():
            with (self.folder / f"{name}.npy").open("wb") as stream:
                facts = {"descr": form.dtype, "fortran_order": False, "shape": (count, *form.row)}
                np.lib.format.write_array_header_1_0(stream, facts)
                stream.truncate(stream.tell() + count * form.row_bytes)

    def finish(self, facts: Mapping[str, object]) -> None:
        """Sync the files of all ranks, and rename the folder. Raises OSError."""
        text = json.dumps(facts, indent=2, sort_keys=True)
        (self.folder / _FACTS).write_text(text, encoding="utf-8")
        for path in self.folder.glob("*.npy"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        if read(self._final) is None:  # else another run was first
            shutil.rmtree(self._final, ignore_errors=True)
            self.folder.replace(self._final)
            (self._final / _LOCK).unlink()
        self.abandon()

    def abandon(self) -> None:
        """Delete the draft, if it was not finished."""
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def write(folder: Path, number: int, rows: Mapping[str, np.ndarray]) -> None:
    """Write `rows` of each array into a draft, from row `number` on. Raises OSError."""
    for name, array in rows.items():
        path = folder / f"{name}.npy"
        form, _, start = _head(path)
        with path.open("r+b", buffering=0) as stream:
            stream.seek(start + number * form.row_bytes)
            left = memoryview(np.ascontiguousarray(array, form.dtype).tobytes())
            while left:
                left = left[stream.write(left) :]


def _head(path: Path) -> tuple[Form, int, int]:
    """The form of an array, its number of rows, and the offset of the first."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        (count, *row), _, dtype = np.lib.format.read_array_header_1_0(stream)
        return Form(dtype.str, tuple(row)), count, stream.tell()


def _locked(stream: IO[bytes]) -> IO[bytes] | None:
    """The open file, locked until it is closed; None: another process has the lock."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream
