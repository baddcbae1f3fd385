"""MATLAB 5 files: what scipy makes of them is summed, and tried in another process, before it reads."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from typing import BinaryIO

from gearshift.models.common.data_files import check_expansion, identity

_SIGNATURE = b"MATLAB 5.0 MAT-file"
_HEAD = 128
_BLOCK = 1 << 16
"""Bytes that are unpacked at once."""
_DEEPEST = 100
"""Cells within cells; scipy calls itself for each."""
_OBJECT = 128
"""Bytes of an array in memory beside its numbers."""
_MATRIX = 14
_COMPRESSED = 15
_LETTERS = (1, 2, 4, 16, 17, 18)
"""Types of elements of text."""
_BYTES_BY_TYPE = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of a number by the type of its element; scipy reads beyond its table for an unknown one."""
_CELL = 1
_STRUCT = 2
_OBJECT_CLASS = 3
_CHAR = 4
_SPARSE = 5
_FUNCTION = 16
_OPAQUE = 17
_BYTES_BY_CLASS = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}
"""Bytes of a number in memory by the class of an array of numbers. This and the above: MathWorks,
MAT-File Format, 2019."""
_TRY = (
    "import os, sys; sys.path[:] = sys.argv[2:]; os.environ['OPENBLAS_NUM_THREADS'] = '1';"
    "from scipy.io import loadmat; loadmat(sys.argv[1], squeeze_me=True)"
)


def check(path: Path) -> None:
    """Raise an error if scipy would end this process for the MATLAB 5 file at `path`, or fill its memory.

    Files of other formats pass. Reads the disk, in part in another process, once for a file as it is.
    Raises ValueError, and DataError as `check_expansion`.
    """
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return
    _check(path, identity(path))


@cache
def _check(path: Path, as_it_is: tuple[int, ...]) -> None:
    unpacked = 0
    with path.open("rb") as file:
        for size in _variables(file):
            unpacked += size
            check_expansion(path, unpacked)
    tried = subprocess.run(
        [sys.executable, "-c", _TRY, str(path), *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # signals to this process are not about the file
    )
    if tried.returncode < 0:
        raise ValueError(
            f"a process that read it was ended by {signal.Signals(-tried.returncode).name}"
        )


class _Elements:
    """The elements of a variable, in the order in which scipy reads them."""

    def __init__(self, file: BinaryIO, order: str, packed: int | None) -> None:
        """`packed`: bytes of the variable in the file if it is compressed."""
        self._file = file
        self._order = order
        self._packed = packed
        self._inflate = zlib.decompressobj()
        self._ready = b""

    def read(self, size: int) -> bytes:
        """The next bytes. Raises ValueError if there are fewer."""
        if self._packed is None:
            data = self._file.read(size)
        else:
            while len(self._ready) < size and self._unpack():
                pass
            data = self._ready[:size]
            self._ready = self._ready[size:]
        if len(data) < size:
            raise ValueError("it ends within a variable")
        return data

    def _unpack(self) -> bool:
        """Unpack one more block; whether there was one."""
        assert self._packed is not None, "the variable is compressed"
        data = self._inflate.unconsumed_tail
        if not data:
            data = self._file.read(min(self._packed, _BLOCK))
            self._packed -= len(data)
        block = self._inflate.decompress(data, _BLOCK)
        self._ready += block
        return bool(block) or (bool(data) and not self._inflate.eof)

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        while size > 0:
            size -= len(self.read(min(size, _BLOCK)))

    def integers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"{self._order}{count}i", self.read(4 * count))

    def tag(self) -> tuple[int, int]:
        """Type and bytes of an element without its data."""
        kind, size = struct.unpack(f"{self._order}II", self.read(8))
        return kind, size

    def element(self) -> tuple[int, int]:
        """Type and bytes of an element, passed over."""
        kind, size, _ = self._element(0)
        return kind, size

    def _element(self, most: int) -> tuple[int, int, bytes]:
        """Type and bytes of an element, and its data if it has at most `most` bytes."""
        (kind,) = struct.unpack(f"{self._order}I", self.read(4))
        if kind >> 16:  # type, size and data in 8 bytes
            return kind & 0xFFFF, kind >> 16, self.read(4)[: kind >> 16]
        (size,) = struct.unpack(f"{self._order}I", self.read(4))
        if size > most:
            self.skip(size + -size % 8)
            return kind, size, b""
        return kind, size, self.read(size + -size % 8)[:size]

    def numbers(self) -> tuple[int, ...]:
        """The few integers of an element. Raises ValueError for many."""
        _, size, data = self._element(128)
        if size % 4 or len(data) != size:
            raise ValueError("it has a list of sizes that is damaged")
        return struct.unpack(f"{self._order}{size // 4}i", data)


def _variables(file: BinaryIO) -> Iterator[int]:
    """The bytes that the parts of each variable need in memory, in the order of the file.

    Raises ValueError, and zlib.error for damaged data.
    """
    order = ">" if file.read(_HEAD)[126:] == b"MI" else "<"
    while head := file.read(8):
        if len(head) < 8:
            raise ValueError("it ends within a variable")
        kind, size = struct.unpack(f"{order}II", head)
        following = file.tell() + size
        elements = _Elements(file, order, size if kind == _COMPRESSED else None)
        if kind == _COMPRESSED:
            kind, size = elements.tag()
        if kind != _MATRIX:
            raise ValueError(f"it has a variable of the unknown type {kind}")
        yield from _array(elements, 0)
        file.seek(following)


def _array(elements: _Elements, depth: int) -> Iterator[int]:
    """The bytes that an array, after its tag, and those within it need in memory."""
    if depth > _DEEPEST:
        raise ValueError(f"it has arrays in more than {_DEEPEST} levels")
    elements.skip(8)
    flags, _ = elements.integers(2)
    kind = flags & 0xFF
    is_complex = bool(flags & 0x800)
    if kind == _OPAQUE:
        for _ in range(3):  # names
            elements.element()
        yield from _inner_arrays(elements, 1, depth)
        return
    sizes = elements.numbers()
    if not sizes or min(sizes) < 0:
        raise ValueError(f"it has an array of the size {sizes}")
    count = prod(sizes)
    elements.element()  # its name
    if kind in _BYTES_BY_CLASS or kind == _SPARSE:
        parts = 1 + is_complex + 2 * (kind == _SPARSE)
        for _ in range(parts):
            of_type, size = elements.element()
            if of_type not in _BYTES_BY_TYPE:
                raise ValueError(f"it has numbers of the unknown type {of_type}")
            width = _BYTES_BY_CLASS.get(kind, 8) * (1 + is_complex)
            yield _OBJECT + size + size // _BYTES_BY_TYPE[of_type] * width
    elif kind == _CHAR:
        of_type, size = elements.element()
        if of_type not in _LETTERS:
            raise ValueError(f"it has letters of the unknown type {of_type}")
        yield _OBJECT + size + 4 * count
    elif kind == _CELL:
        yield _OBJECT + 8 * count
        yield from _inner_arrays(elements, count, depth)
    elif kind in (_STRUCT, _OBJECT_CLASS):
        if kind == _OBJECT_CLASS:
            elements.element()  # the name of its class
        (length,) = elements.numbers()
        _, size = elements.element()
        if length <= 0:
            raise ValueError("it has fields without a name")
        fields = size // length
        yield _OBJECT + 8 * count * fields
        yield from _inner_arrays(elements, count * fields, depth)
    elif kind == _FUNCTION:
        yield from _inner_arrays(elements, 1, depth)
    else:
        raise ValueError(f"it has an array of the unknown class {kind}")


def _inner_arrays(elements: _Elements, count: int, depth: int) -> Iterator[int]:
    for _ in range(count):
        kind, size = elements.tag()
        if kind != _MATRIX:
            raise ValueError(f"it has an array of the unknown type {kind}")
        yield _OBJECT
        if size:
            yield from _array(elements, depth + 1)
