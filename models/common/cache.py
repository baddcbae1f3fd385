"""Arrays that are made once and read from disk thereafter, mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

VARIABLE = "GEARSHIFT_CACHE"
_FACTS = "made_from.json"

Open = Callable[[str], BinaryIO]
"""Opens the file of one array, by its key, for writing in the .npy format."""


def folder() -> Path:
    """Where made data is kept: $GEARSHIFT_CACHE, or the system's place for caches."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/gearshift").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gearshift"


def arrays(
    name: str, made_from: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `make` gives, read-only; mapped from disk where it was made before.

    `made_from` is all that it depends on, as JSON: the version of the maker, seed, sizes. A cache
    that cannot be written is done without. Reads and writes the disk.
    """
    place, facts = _place(name, made_from)
    if (found := _read(place, facts)) is not None:
        return found
    made = {key: np.ascontiguousarray(array) for key, array in make().items()}

    def write(new: Open) -> None:
        for key, array in made.items():
            np.save(new(key), array, allow_pickle=False)

    try:
        _write(place, facts, write)
    except OSError:
        return made
    return _read(place, facts) or made


def streamed(
    name: str, made_from: Mapping[str, Any], write: Callable[[Open], None]
) -> dict[str, np.ndarray]:
    """As `arrays`, for what is too large to stand in memory: `write` makes it piece by piece.

    See models/common/cache.py. Raises OSError where the cache cannot be written.
    """
    place, facts = _place(name, made_from)
    if (found := _read(place, facts)) is None:
        _write(place, facts, write)
        found = _read(place, facts)
    if found is None:
        raise OSError(f"what was written to '{place}' cannot be read again")
    return found


def in_memory(write: Callable[[Open], None]) -> dict[str, np.ndarray]:
    """What `write` gives to `streamed`, where it is too small to be worth a file."""
    files: dict[str, BytesIO] = {}

    def new(key: str) -> BytesIO:
        return files.setdefault(key, BytesIO())

    write(new)
    return {
        key: np.load(BytesIO(file.getbuffer()), allow_pickle=False) for key, file in files.items()
    }


def _place(name: str, made_from: Mapping[str, Any]) -> tuple[Path, str]:
    """Where the data is kept, and the text that tells what it was made from."""
    facts = json.dumps({"name": name, **made_from}, sort_keys=True)
    return folder() / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}", facts


def _read(place: Path, facts: str) -> dict[str, np.ndarray] | None:
    """What lies at `place`; None if nothing whole lies there."""
    try:
        if (place / _FACTS).read_text(encoding="utf-8") != facts:
            return None
        return {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in sorted(place.glob("*.npy"))
        }
    except (OSError, ValueError):
        return None


def _write(place: Path, facts: str, write: Callable[[Open], None]) -> None:
    """Written beside its place and moved there: other processes see all of it or nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        with ExitStack() as opened:
            write(lambda key: opened.enter_context((partial / f"{key}.npy").open("wb")))
        (partial / _FACTS).write_text(facts, encoding="utf-8")
        if place.exists() and _read(place, facts) is None:
            shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
    except OSError:
        if _read(place, facts) is None:  # else another process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # nothing is there once it was moved


class ArrayFile:
    """Appends to a file; what numpy then loads is the whole vector.

    The file is whole only after `finish`: the header that tells the length is written again there.
    """

    def __init__(self, file: BinaryIO, dtype: np.dtype | type) -> None:
        """`file` is open for writing and empty, and stays the caller's to close."""
        self._file, self._dtype, self.length = file, np.dtype(dtype), 0
        self._header = self._write_header()

    def append(self, array: np.ndarray) -> None:
        """Add a vector to the end."""
        self._file.write(np.ascontiguousarray(array, dtype=self._dtype).tobytes())
        self.length += len(array)

    def finish(self) -> None:
        """Write down how long the vector became."""
        end = self._file.tell()
        self._file.seek(0)
        # The format leaves room in the header for a shape that grows.
        if self._write_header() != self._header:
            raise ValueError(f"no room in the header for a length of {self.length}")
        self._file.seek(end)

    def _write_header(self) -> int:
        facts = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, facts)
        return self._file.tell()
