"""A growing .npy file, and arrays that are too small for a file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO

import numpy as np
from numpy import ndarray

Arrays = dict[str, ndarray]
"""Arrays of one entry of the cache, by key."""


Open = Callable[[str], BinaryIO]
"""Opens the file of one array, by its key, for writing in the .npy format."""


def in_memory(write: Callable[[Open], None]) -> Arrays:
    """The arrays of `streamed`, for those too small to be worth a file."""
    files: defaultdict[str, BytesIO] = defaultdict(BytesIO)
    write(files.__getitem__)
    arrays = {}
    for key, file in files.items():
        file.seek(0)
        arrays[key] = np.load(file, allow_pickle=False)
    return arrays


class ArrayFile:
    """A vector in the .npy format that grows at its end while it is written.

    The file is valid only after `finish`, which writes the header again with the final length.
    """

    def __init__(self, file: BinaryIO, dtype: np.dtype | type) -> None:
        """`file` is open for writing and empty; the caller closes it."""
        self._file = file
        self._dtype = np.dtype(dtype)
        self.length = 0
        self._write_header()

    def append(self, array: ndarray) -> None:
        """Append a vector."""
        self._file.write(np.ascontiguousarray(array, dtype=self._dtype).tobytes())
        self.length += len(array)

    def finish(self) -> None:
        """Write the final length into the header, in which the format leaves room for it."""
        self._file.seek(0)
        self._write_header()
        self._file.seek(0, os.SEEK_END)

    def _write_header(self) -> None:
        facts = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, facts)
