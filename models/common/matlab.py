"""MATLAB 5 files: what scipy makes of one is summed, and tried in another process, before."""

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

import numpy as np

from gearshift.models.common.data_files import check_expansion, identity, most_unpacked

_SIGNATURE = b"MATLAB 5.0 MAT-file"
_HEAD = 128
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
    """Raise an error if scipy would end this process for a MATLAB 5 file, or fill its memory.

    Files of other formats pass. Reads the disk, in part in another process, once for a file as it
    is. Raises ValueError, and DataError as `check_expansion`.
    """
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return
    _check(path, identity(path))


@cache
def _check(path: Path, as_it_is: tuple[int, ...]) -> None:
    unpacked = 0
    for size in _variables(path):
        unpacked += size
        check_expansion(path, unpacked)
    process = subprocess.run(
        [sys.executable, "-c", _TRY, str(path), *sys.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # signals to this process are not about the file
    )
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise ValueError(f"a process that read it was ended by {name}")


class _Elements:
    """The elements of variables, in the order in which scipy reads them."""

    def __init__(self, data: memoryview, order: str) -> None:
        """`data`: bytes, mapped from the disk or unpacked; `order` of bytes, for struct."""
        self.data = data
        self.at = 0
        self._order = order

    def read(self, size: int) -> memoryview:
        """The next bytes. Raises ValueError if there are fewer."""
        end = self.at + size
        if end > len(self.data):
            raise ValueError("it ends within a variable")
        part = self.data[self.at : end]
        self.at = end
        return part

    def unpack(self, types: str) -> tuple[int, ...]:
        """The next numbers, of types as struct names them."""
        form = struct.Struct(self._order + types)
        return form.unpack(self.read(form.size))

    def element(self) -> tuple[int, memoryview]:
        """Type and data of an element."""
        (kind,) = self.unpack("I")
        size = kind >> 16
        if size > 4:
            raise ValueError("it has an element whose size is damaged")
        if size:  # type, size and data in 8 bytes
            return kind & 0xFFFF, self.read(4)[:size]
        (size,) = self.unpack("I")
        with_padding = self.read(size + -size % 8)
        return kind, with_padding[:size]

    def numbers(self) -> tuple[int, ...]:
        """The integers of an element."""
        _, data = self.element()
        if len(data) % 4:
            raise ValueError("it has a list of sizes that is damaged")
        return struct.unpack(f"{self._order}{len(data) // 4}i", data)


def _variables(path: Path) -> Iterator[int]:
    """The bytes that the parts of each variable need in memory, in the order of the file.

    Raises ValueError, and zlib.error for damaged data.
    """
    data = np.memmap(path, np.uint8, "r").data
    order = ">" if data[126:_HEAD] == b"MI" else "<"
    elements = _Elements(data, order)
    elements.read(_HEAD)
    while elements.at < len(data):
        kind, size = elements.unpack("II")
        end = elements.at + size
        variable = elements
        if kind == _COMPRESSED:
            content = _unpacked(path, data[elements.at : end])
            yield len(content)
            variable = _Elements(content, order)
            kind, _ = variable.unpack("II")
        if kind != _MATRIX:
            raise ValueError(f"it has a variable of the unknown type {kind}")
        yield from _array(variable, 0)
        elements.at = end  # as scipy does, wherever its elements end


def _unpacked(path: Path, data: memoryview) -> memoryview:
    """The bytes of a variable, cut where they are more than a file of that size may have."""
    return memoryview(zlib.decompressobj().decompress(data, most_unpacked(path) + 1))


def _array(elements: _Elements, depth: int) -> Iterator[int]:
    """The bytes that an array, after its tag, and those within it need in memory."""
    if depth > _DEEPEST:
        raise ValueError(f"it has arrays in more than {_DEEPEST} levels")
    _, _, flags, _ = elements.unpack("4I")
    kind = flags & 0xFF
    num_inner = 0
    if kind == _OPAQUE:
        num_inner = 1
        for _ in range(3):  # names
            elements.element()
    else:
        sizes = elements.numbers()
        if not sizes or min(sizes) < 0:
            raise ValueError(f"it has an array of the size {sizes}")
        count = prod(sizes)
        elements.element()  # its name

    if kind in _BYTES_BY_CLASS or kind == _SPARSE:
        is_complex = bool(flags & 0x800)
        width = _BYTES_BY_CLASS.get(kind, 8) * (1 + is_complex)
        for _ in range(1 + is_complex + 2 * (kind == _SPARSE)):
            of_type, data = elements.element()
            if of_type not in _BYTES_BY_TYPE:
                raise ValueError(f"it has numbers of the unknown type {of_type}")
            yield len(data) // _BYTES_BY_TYPE[of_type] * width
    elif kind == _CHAR:
        of_type, _ = elements.element()
        if of_type not in _LETTERS:
            raise ValueError(f"it has letters of the unknown type {of_type}")
        yield 4 * count
    elif kind == _CELL:
        num_inner = count
    elif kind in (_STRUCT, _OBJECT_CLASS):
        if kind == _OBJECT_CLASS:
            elements.element()  # the name of its class
        (length,) = elements.numbers()
        _, names = elements.element()
        if length <= 0:
            raise ValueError("it has fields without a name")
        num_inner = count * (len(names) // length)
    elif kind == _FUNCTION:
        num_inner = 1
    elif kind != _OPAQUE:
        raise ValueError(f"it has an array of the unknown class {kind}")

    yield _OBJECT + 8 * num_inner
    for _ in range(num_inner):
        kind, size = elements.unpack("II")
        if kind != _MATRIX:
            raise ValueError(f"it has an array of the unknown type {kind}")
        yield _OBJECT
        if size:
            yield from _array(elements, depth + 1)
