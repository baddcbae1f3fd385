"""A file that is on its way: the bytes that have come, their checksum, and whose they are."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from launcher.download import record
from launcher.download.record import Stamp, Unfinished
from launcher.download.targets import Target

_PIECE = 1 << 20


class Part:
    """The unfinished file of a target; all methods touch the disk.

    `url` is that without secrets. What another URL left is not gone on with.
    """

    def __init__(self, target: Target) -> None:
        self.path = target.state / f"{target.name}.part"
        self._about = target.state / f"{target.name}.part.json"
        self._url = str(target.file.url)
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes that have come."""
        self.stamp = Stamp()
        self.was_resumed = False
        """Whether the bytes are of more than one answer."""

    def __enter__(self) -> Part:
        known = record.unfinished(self._about)
        self._file = self.path.open("a+b", buffering=0)  # what is written survives us
        if known is None or known.url != self._url:
            self.clear()
            return self
        self.stamp = known.stamp
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            self._hash.update(piece)
            self.size += len(piece)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        self._file.close()
        if not self.size:
            self.discard()

    @property
    def sha256(self) -> str:
        """The checksum of all that has come."""
        return self._hash.hexdigest()

    def clear(self) -> None:
        """Begin anew."""
        assert self._file is not None
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0
        self.stamp = Stamp()
        self.was_resumed = False
        self._about.unlink(missing_ok=True)

    def belongs_to(self, stamp: Stamp, total: int | None) -> None:
        """Remember which state of the file this is a part of."""
        self.stamp = stamp
        record.save(self._about, Unfinished(self._url, stamp.etag, stamp.modified, total))

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        assert self._file is not None
        left = memoryview(piece)
        while left:  # without a buffer a write may take less than it was given
            left = left[self._file.write(left) :]
        self._hash.update(piece)
        self.size += len(piece)

    def sync(self) -> None:
        """See to it that what is renamed next holds its bytes also after a power cut."""
        assert self._file is not None
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Leave nothing here, also where the bytes were moved to their place."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)
