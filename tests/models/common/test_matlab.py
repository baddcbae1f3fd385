import io
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from gearshift.models.base import DataError
from gearshift.models.common import matlab, trial


def test_a_file_of_cells_fields_and_text_passes(tmp_path):
    fields = np.zeros((1, 3), [("content", object)])
    fields[0, 0]["content"] = "größe"
    path = tmp_path / "a.mat"
    savemat(path, {"fields": fields, "numbers": np.ones(2**20), "name": "EEG"}, do_compression=True)
    matlab.check(path)


def test_a_small_file_that_fills_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "PROGRAM_BYTES", 2**26)
    # 2**27 numbers, each stored as a byte: 128 MiB from 128 kB.
    count = 1 << 27
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


@pytest.mark.parametrize("kind, of_type", [(16, 0), (9, 200)])  # of letters, of numbers
def test_a_damage_that_ends_the_process_is_an_error(tmp_path, kind, of_type):
    file = io.BytesIO()
    savemat(file, {"a": "some letters", "b": np.ones((2, 2))})
    sizes = {16: 12, 9: 32}
    element, damaged = (np.array([n, sizes[kind]], "<i4").tobytes() for n in (kind, of_type))
    path = tmp_path / "a.mat"
    path.write_bytes(file.getvalue().replace(element, damaged))
    with pytest.raises(ValueError, match="SIGSEGV"):
        matlab.check(path)


def test_a_file_that_scipy_cannot_read_is_not_read_again(tmp_path):
    """The same damage ends a process or raises an error, by what is beside it in memory."""
    file = io.BytesIO()
    savemat(file, {"a": np.ones((2, 2)), "b": "letters"})
    path = tmp_path / "a.mat"
    path.write_bytes(file.getvalue()[:-8])
    matlab.check(path, "a")
    with pytest.raises(ValueError, match="read"):
        matlab.check(path)
