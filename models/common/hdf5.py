"""HDF5 datasets that claim more than their file stores."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

_CHUNK_BYTES = 2**28
"""A chunk is in memory as a whole when any part of it is read."""


def problem_of(dataset: Any) -> str | None:
    """Why reading an h5py dataset may need much more memory than the file has; None: it does not.

    Data that was never written costs nothing on the disk, and is read as zeros. Reads the disk.
    """
    shape = " × ".join(f"{length:,}" for length in dataset.shape) or "1"
    if dataset.chunks is None:
        stored = dataset.id.get_storage_size() // dataset.dtype.itemsize
        if not dataset.external and not dataset.is_virtual and stored < dataset.size:
            return f"claims {shape} values, but the file stores {stored:,}"
        return None
    if prod(dataset.chunks) * dataset.dtype.itemsize > _CHUNK_BYTES:
        return f"has chunks of {prod(dataset.chunks):,} values, each read at once"
    whole = prod(ceil(n / chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    stored = dataset.id.get_num_chunks()
    if stored < whole:
        return f"claims {shape} values in {whole:,} chunks, but the file stores {stored:,}"
    return None
