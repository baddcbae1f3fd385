"""Damaged versions of files, and what a reader may do with them: give data, or one DataError."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from models.base import DataError

MEMORY = 2**30
"""Bytes that a reader may allocate for a damaged file of a few kilobytes."""
_VALUES = (
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80"),
    *(b"-1", b"0", b"99999999", b"nan", b"1e999", b"\x00", b"\n", b"\xc3\x28", b"\xe2\x80\xa8"),
)
"""Values that readers trip over: large and negative numbers, ends, and invalid UTF-8."""


def damaged(data: bytes, seed: int) -> bytes:
    """`data` after one to three damages: cut, flipped, written, zeroed, doubled or removed bytes.

    Half of the places are in the first 512 bytes, where most formats have their header.
    """
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, min(512, len(data)) if rng.random() < 0.5 else len(data))))
        end = at + int(rng.integers(1, 65))
        value = _VALUES[rng.integers(len(_VALUES))]
        data = (
            data[:at],
            data[:at] + bytes(b ^ 1 << rng.integers(8) for b in data[at : at + 1]) + data[at + 1 :],
            data[:at] + value + data[at + len(value) :],
            data[:at] + bytes(len(data[at:end])) + data[end:],
            data[:end] + data[at:],
            data[:at] + data[end:],
        )[rng.integers(6)]
    return data


@contextmanager
def limited_memory(more: int = MEMORY) -> Iterator[None]:
    """Let this process allocate `more` bytes; a larger allocation raises MemoryError."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def error_of(read: Callable[[], object]) -> DataError | None:
    """The one error that `read` may raise, without a warning; None: it gave data."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with limited_memory():
                read()
        except DataError as error:
            assert error.message and "MemoryError" not in error.message
            assert error.where or error.fix or error.allowed, error.message
            return error
    return None


def check_damaged(path: Path, read: Callable[[Path], object], count: int) -> None:
    """Read a whole file, and `count` damaged versions of it at its path."""
    whole = path.read_bytes()
    assert error_of(lambda: read(path)) is None
    try:
        for seed in range(count):
            path.write_bytes(damaged(whole, seed))
            try:
                error_of(lambda: read(path))
            except Exception as error:
                raise AssertionError(f"{path.name} with damage {seed}") from error
    finally:
        path.write_bytes(whole)
