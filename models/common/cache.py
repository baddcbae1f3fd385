"""Cached arrays: computed once, then mapped from disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError, Facts
from gearshift.models.common.array_file import Arrays, Open
from gearshift.models.common.data_files import CACHE_VARIABLE, cache_folder

_FACTS = "made_from.json"
_unwritten: dict[str, Arrays] = {}
"""Arrays by what they were made from, where the cache cannot be written."""


def arrays(
    name: str,
    made_from: Facts,
    make: Callable[[], Mapping[str, ndarray]],
) -> Arrays:
    """The arrays that `make` returns, read-only; mapped from disk if they were cached before.

    `made_from` holds all that they depend on, as JSON: version of the code, seed, sizes. If the
    cache cannot be written, the arrays stay in memory until the process ends. Reads and writes the
    disk.
    """
    entry, facts = _entry(name, made_from)
    cached = _unwritten.get(facts) or _read(entry, facts)
    if cached is not None:
        return cached
    new_arrays = {key: np.ascontiguousarray(array) for key, array in make().items()}

    def write(new: Open) -> None:
        for key, array in new_arrays.items():
            np.save(new(key), array, allow_pickle=False)

    try:
        return _write(entry, facts, write)
    except OSError:
        return _unwritten.setdefault(facts, new_arrays)


def streamed(
    name: str,
    made_from: Facts,
    write: Callable[[Open], None],
    size: int,
) -> Arrays:
    """As `arrays`, for arrays too large for memory: `write` writes them piece by piece.

    See ArrayFile. `size`: bytes of the data. Raises DataError if the cache cannot be written.
    """
    entry, facts = _entry(name, made_from)
    cached = _read(entry, facts)
    try:
        if cached is None:
            return _write(entry, facts, write)
        return cached
    except OSError as error:
        raise DataError(
            f"cannot write the cache: {error.strerror or error}",
            where=str(cache_folder()),
            allowed=f"a writable folder with about {2 * size / 1e9:.2g} GB of free space",
            hint=f"export {CACHE_VARIABLE}=FOLDER",
        ) from None


def _entry(name: str, made_from: Facts) -> tuple[Path, str]:
    facts = json.dumps({"name": name, **made_from}, sort_keys=True)
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return cache_folder() / f"{name}-{digest[:16]}", facts


def _read(entry: Path, facts: str) -> Arrays | None:
    """The arrays of `entry`; None if it is absent or incomplete."""
    try:
        if (entry / _FACTS).read_text(encoding="utf-8") != facts:
            return None
        return {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in sorted(entry.glob("*.npy"))
        }
    except (OSError, ValueError):
        return None


def _write(entry: Path, facts: str, write: Callable[[Open], None]) -> Arrays:
    """Write to a temporary folder and rename it: other processes see all of it or nothing.

    Temporary folders of killed processes, which no process locks, are removed. Raises OSError.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    for folder in entry.parent.glob(f".{entry.name}-*"):
        with suppress(OSError), _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory(
        prefix=f".{entry.name}-",
        dir=entry.parent,
        ignore_cleanup_errors=True,  # it is absent once it was renamed
    ) as name:
        partial = Path(name)
        with ExitStack() as opened:
            with suppress(OSError):  # a network file system may have no locks for folders
                opened.enter_context(_locked(partial))
            write(lambda key: opened.enter_context((partial / f"{key}.npy").open("wb")))
        # The facts come last: an entry without them is incomplete.
        (partial / _FACTS).write_text(facts, encoding="utf-8")
        if _read(entry, facts) is None:
            shutil.rmtree(entry, ignore_errors=True)
            with suppress(OSError):  # another process was first
                partial.replace(entry)
    arrays = _read(entry, facts)
    if arrays is None:
        raise OSError("what was written cannot be read back")
    return arrays


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder. Raises OSError if another process has the lock, or there are none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
