"""Encodings on disk: rows of arrays in the .npy format, whole or not there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
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
    """One array: numbers of what type, and the shape of a row."""

    dtype: str
    """As numpy writes it, such as "<f4"."""
    row: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return np.dtype(self.dtype).itemsize * prod(self.row)


class Rows:
    """Rows by number, mapped from disk as they are asked for; can be sent to other processes."""

    def __init__(self, folder: Path) -> None:
        """Reads the heads of the files. Raises OSError or ValueError where they are not whole."""
        self._arrays: dict[str, tuple[Path, Form, int]] = {}
        for path in sorted(folder.glob("*.npy")):
            form, count, start = _head(path)
            if path.stat().st_size != start + count * form.row_bytes:
                raise ValueError(f"{path} is not whole")
            self._arrays[path.stem] = path, form, start

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        """A copy of row `number` of each array."""
        found = {}
        for name, (path, form, start) in self._arrays.items():
            place = start + number * form.row_bytes
            # Mapped for a row only: the pages of a mapping that stays count as this process's.
            found[name] = np.array(np.memmap(path, form.dtype, "r", place, form.row))
        return found


def read(folder: Path) -> Rows | None:
    """What lies in `folder`, moved there once it was whole; None: nothing. Touches disk."""
    try:
        return Rows(folder) if (folder / _FACTS).is_file() else None
    except (OSError, ValueError):
        return None


class Draft:
    """Arrays on their way, beside the place where they will be; one rank makes it.

    What a killed process left there is taken away: the lock that it held is free.
    """

    def __init__(self, place: Path, forms: Mapping[str, Form], count: int) -> None:
        """Files of full size, without their numbers. Raises OSError."""
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        self.folder = Path(tempfile.mkdtemp(prefix=_prefix(place), dir=place.parent))
        self._place = place
        self._lock = _locked((self.folder / _LOCK).open("wb"))
        for name, form in forms.items():
            with (self.folder / f"{name}.npy").open("wb") as stream:
                facts = {"descr": form.dtype, "fortran_order": False, "shape": (count, *form.row)}
                np.lib.format.write_array_header_1_0(stream, facts)
                stream.truncate(stream.tell() + count * form.row_bytes)

    def finish(self, facts: Mapping[str, object]) -> None:
        """Sync what all have written, and move it to its place. Raises OSError."""
        text = json.dumps(facts, indent=2, sort_keys=True)
        (self.folder / _FACTS).write_text(text, encoding="utf-8")
        for path in self.folder.glob("*.npy"):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        if read(self._place) is None:  # else another run was first
            shutil.rmtree(self._place, ignore_errors=True)
            self.folder.replace(self._place)
            (self._place / _LOCK).unlink()
        self.abandon()

    def abandon(self) -> None:
        """Take away what did not come to its place."""
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def write(folder: Path, number: int, rows: Mapping[str, np.ndarray]) -> None:
    """Put `rows`, of each array some from row `number` on, into a draft. Raises OSError."""
    for name, array in rows.items():
        path = folder / f"{name}.npy"
        form, _, start = _head(path)
        with path.open("r+b", buffering=0) as stream:
            stream.seek(start + number * form.row_bytes)
            left = memoryview(np.ascontiguousarray(array, form.dtype).tobytes())
            while left:
                left = left[stream.write(left) :]


def total_bytes(forms: Mapping[str, Form], counts: Sequence[int]) -> int:
    """Bytes that so many rows take."""
    return sum(form.row_bytes for form in forms.values()) * sum(counts)


def _head(path: Path) -> tuple[Form, int, int]:
    """The form of an array, its rows, and where the first one begins."""
    with path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        (count, *row), _, dtype = np.lib.format.read_array_header_1_0(stream)
        return Form(dtype.str, tuple(row)), count, stream.tell()


def _prefix(place: Path) -> str:
    return f".{place.name}-"


def _sweep(place: Path) -> None:
    for left in place.parent.glob(f"{_prefix(place)}*"):
        with suppress(OSError):
            lock = _locked((left / _LOCK).open("r+b"))
            if lock is not None:
                shutil.rmtree(left, ignore_errors=True)
                lock.close()


def _locked(stream: IO[bytes]) -> IO[bytes] | None:
    """The open file, held by this process until it is closed; None: another one holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream
