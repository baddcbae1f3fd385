"""How much an archive may come to, counted as it is unpacked and not as it claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO


class Unsafe(Exception):
    """An archive that is broken, or does what none has to; the text says what."""


_LARGEST_READ = 1 << 26
"""Bytes at once; no header has to be so long, and each is held in memory."""
_HEADER_BYTES = 1 << 12
"""What a member may have beside its content."""


class Bounds:
    """Counts bytes and members, and refuses those that are too many."""

    def __init__(
        self,
        most_bytes: int,
        most_members: int,
        seen: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`seen` is told after each piece how many bytes there are."""
        self._most_bytes = most_bytes
        self._most_members = most_members
        self._seen = seen
        self.bytes = 0
        self.members = 0

    @property
    def most_read(self) -> int:
        """How far a decompressed archive may be read: content and headers."""
        return self._most_bytes + _HEADER_BYTES * (self._most_members + 1)

    def add(self, count: int) -> None:
        """So many more bytes are about to be written."""
        self.bytes += count
        if self.bytes > self._most_bytes:
            most = f"{self._most_bytes / 1e9:g} GB"
            raise Unsafe(f"comes to more than the {most} of download.max_gb")
        self._seen(self.bytes)

    def member(self) -> None:
        """One more file, folder or link is about to be made."""
        self.members += 1
        if self.members > self._most_members:
            raise Unsafe(f"has more than {self._most_members:,} files")


class Bounded:
    """A decompressed stream that tarfile reads, up to a bound and never much at once."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._most = most
        self.last = b""
        """What was read last."""

    def read(self, count: int = -1) -> bytes:
        """Read `count` bytes."""
        if count < 0 or count > _LARGEST_READ:
            raise Unsafe("has a header that is too long")
        self.last = self._stream.read(count)
        if self._stream.tell() > self._most:
            raise Unsafe("is longer than download.max_gb allows")
        return self.last

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to `place`; what is compressed is read up to there."""
        if whence == 0 and place > self._most:
            raise Unsafe("claims a content that is too long")
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        """The place in the stream."""
        return self._stream.tell()
