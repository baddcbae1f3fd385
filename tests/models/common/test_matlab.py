import io
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from gearshift.models.base import DataError
from gearshift.models.common import matlab

CELLS = np.empty((2, 2), object)
CELLS[:] = [["a text", np.ones((3, 4))], [np.int8(3), np.zeros((0, 0))]]
FIELDS = np.zeros((1, 3), [("content", object), ("values", object)])
for number in range(3):
    FIELDS[0, number] = ("größe", np.arange(50.0 + number) * (1 + 1j))
VARIABLES = {"cells": CELLS, "fields": FIELDS, "bytes": np.arange(9000) < 5, "name": "EEG"}


def size_of(value):
    """The bytes of numbers and letters in what scipy read."""
    if isinstance(value, np.ndarray) and value.dtype.names:
        return sum(size_of(value[name]) for name in value.dtype.names)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return sum(map(size_of, value.ravel()))
    return value.nbytes if isinstance(value, np.ndarray) else 0


@pytest.mark.parametrize("is_packed", [False, True])
def test_what_a_file_unpacks_to_is_at_least_what_scipy_reads(tmp_path, is_packed):
    path = tmp_path / "a.mat"
    savemat(path, VARIABLES, do_compression=is_packed)
    unpacked = sum(matlab._variables(path))
    content = loadmat(path)
    read = sum(size_of(content[name]) for name in VARIABLES)
    assert read < unpacked < 4 * read
    matlab.check(path)


def test_a_small_file_that_fills_the_memory_is_refused_before_it_is_read(tmp_path):
    # 2**25 doubles, each stored as a byte: 256 MiB from 32 kB.
    count = 1 << 25
    array = np.array([6, 8, 6, 0, 5, 8, 1, count, 1, 0, 2, count], "<i4").tobytes()
    packer = zlib.compressobj(9)
    packed = packer.compress(np.array([14, len(array) + count], "<i4").tobytes() + array)
    for _ in range(count >> 20):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "a.mat"
    path.write_bytes(head + np.array([15, len(packed)], "<i4").tobytes() + packed)
    with pytest.raises(DataError, match="unpacks to"):
        matlab.check(path)


def damaged(at, value):
    """A file of one text and one number, with an integer changed."""
    file = io.BytesIO()
    savemat(file, {"a": "some letters", "b": np.ones((2, 2))})
    data = bytearray(file.getvalue())
    place = data.index(at) if isinstance(at, bytes) else at
    data[place : place + 4] = np.array([value], "<i4").tobytes()
    return bytes(data)


LETTERS = np.array([16, 12], "<i4").tobytes()
DOUBLES = np.array([9, 32], "<i4").tobytes()


@pytest.mark.parametrize(
    "data",
    [
        damaged(LETTERS, 0),
        damaged(DOUBLES, 200),
        damaged(136 + 8, 77),  # the class
        damaged(136 + 20, 0),  # no sizes
        damaged(136 + 24, -1),
        damaged(128, 3),
        damaged(DOUBLES, 9)[:-8],
    ],
)
def test_a_damage_that_scipy_cannot_bear_is_an_error(tmp_path, data):
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="it "):
        matlab.check(path)


def test_a_crash_in_another_process_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    savemat(path, VARIABLES)
    monkeypatch.setattr(matlab, "_TRY", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(ValueError, match="SIGSEGV"):
        matlab.check(path)
