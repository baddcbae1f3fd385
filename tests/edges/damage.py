"""Damaged versions of files, and what a reader may do with them: give data, or one DataError."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from models.base import DataError

MEMORY = 2**30
"""Bytes that a reader may allocate for a damaged file of a few kilobytes."""

fuzz = settings(
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Decorates a test with `given`: the same damage in every run, and no limit of time.

For a slow reader: `settings(fuzz, max_examples=30)`.
"""


@st.composite
def damaged(draw: st.DrawFn, data: bytes, most: int = 3) -> bytes:
    """`data` after one to `most` damages: cut, flipped, zeroed, swapped, doubled or removed bytes.

    Half of the places are in the first 512 bytes, where most formats have their header.
    """
    for _ in range(draw(st.integers(1, most))):
        data = draw(st.sampled_from(_DAMAGES))(draw, data)
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
    """The one error that `read` may raise, with its file named; None: it gave data."""
    try:
        with limited_memory():
            read()
    except DataError as error:
        assert error.message and "MemoryError" not in error.message
        assert error.where or error.fix or error.allowed, f"no place and no fix: {error.message}"
        return error
    return None


def _place(draw: st.DrawFn, data: bytes) -> int:
    end = max(0, len(data) - 1)
    return draw(st.integers(0, min(512, end)) | st.integers(0, end))


def _span(draw: st.DrawFn, data: bytes) -> tuple[int, int]:
    start = _place(draw, data)
    return start, min(len(data), start + draw(st.integers(1, 64)))


def _cut(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def _flip(draw: st.DrawFn, data: bytes) -> bytes:
    place = _place(draw, data)
    value = data[place : place + 1]
    return data[:place] + bytes(b ^ 1 << draw(st.integers(0, 7)) for b in value) + data[place + 1 :]


def _write(draw: st.DrawFn, data: bytes) -> bytes:
    start = _place(draw, data)
    value = draw(st.sampled_from(_VALUES) | st.binary(min_size=1, max_size=8))
    return data[:start] + value + data[start + len(value) :]


def _zero(draw: st.DrawFn, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:start] + bytes(stop - start) + data[stop:]


def _swap(draw: st.DrawFn, data: bytes) -> bytes:
    (a, b), (c, d) = sorted((_span(draw, data), _span(draw, data)))
    b = min(b, c)
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _double(draw: st.DrawFn, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:stop] + data[start:]


def _remove(draw: st.DrawFn, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:start] + data[stop:]


_DAMAGES = (_cut, _flip, _write, _zero, _swap, _double, _remove)
_VALUES = (
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80"),
    *(b"-1", b"0", b"99999999", b"nan", b"1e999", b"\x00", b"\n", b"\xc3\x28", b"\xe2\x80\xa8"),
)
"""Values that readers trip over: large and negative numbers, ends, and invalid UTF-8."""
