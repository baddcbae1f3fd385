"""HDF5 files: refused where they lead to other files, or claim far more than they store."""

from __future__ import annotations

from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gearshift.models.common.data_files import ALWAYS_UNPACKED, MOST_RATIO, check_reader

if TYPE_CHECKING:
    import h5py


_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, also behind a block of another format, as of MATLAB. Reads the disk.

    Source: The HDF Group, HDF5 File Format Specification 3.0: the signature is at 0, 512, 1024,
    2048 ...
    """
    size = path.stat().st_size
    offset = 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
            offset = max(512, 2 * offset)
    return False


def member(file: h5py.File, name: str) -> Any:
    """The group or array `name` of a file; None: it has none. Reads the disk.

    Raises ValueError for a link, which may lead to another file, before it is followed.
    """
    import h5py

    place: Any = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group):
            return None
        link = place.get(part, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"'{part}' of '{name}' is a link")
        place = place[part]
    return place


def problem(array: h5py.Dataset) -> str | None:
    """Why an array is not read: it is in other files, or needs much more memory than its file has.

    None: it is read. Data that was never written costs nothing on the disk, and is read as zeros.
    Reads the disk.
    """
    if array.external or array.is_virtual:
        return "has its numbers in other files"
    size = array.size * array.dtype.itemsize
    stored = array.id.get_storage_size()
    is_cut = stored < size
    if array.chunks is not None:
        counts = map(ceil, np.divide(array.shape, array.chunks))
        is_cut = array.id.get_num_chunks() < prod(counts)
    most = size  # of pictures
    if array.ndim < 3:
        most = max(ALWAYS_UNPACKED, MOST_RATIO * stored)
    if is_cut or size > most:
        return f"claims {size:,} bytes, but the file stores {stored:,}"
    return None


def check(path: Path) -> None:
    """Raise ValueError if a link or an array of an HDF5 file is not read.

    Other files pass. Reads the disk. Raises DataError without h5py.
    """
    if not is_hdf5(path):
        return
    check_reader("h5py", path)
    import h5py

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            reason = problem(item)
            if reason is not None:
                raise ValueError(f"its array '{name}' {reason}")
            return
        for part in item:
            if not isinstance(item.get(part, getlink=True), h5py.HardLink):
                raise ValueError(f"'{part}' of '{name}' is a link")

    with h5py.File(path, "r") as file:
        look("/", file)
        file.visititems(look)
