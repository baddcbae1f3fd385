"""A vector in the .npy format that grows at its end while it is written."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np


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
