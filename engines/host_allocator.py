"""How the C library gives memory back that tensors on the CPU had."""

from __future__ import annotations

import ctypes
import sys

# Of malloc.h.
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 2**20


def return_freed() -> bool:
    """From now on give each freed block of 1 MiB or more back at once; whether that can be told.

    glibc raises the size from which it does so up to 32 MiB as blocks are freed, and keeps smaller
    ones in a heap full of holes: in training the encoder of eeg_text 0.5 of 3.0 GiB. It holds to
    the end of the process. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False  # another C library, with an allocator of its own
    return bool(library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES))
