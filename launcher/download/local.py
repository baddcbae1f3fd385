"""A file on this machine, by a file: URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from launcher.download.errors import refused
from launcher.download.record import Stamp
from launcher.download.source import Body

_PIECE = 1 << 20


class LocalSource:
    """One file: URL; it is always read from its beginning."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._path = Path(url2pathname(urlsplit(url).path))

    def open(self, start: int, stamp: Stamp, unless: Stamp | None) -> Body | None:
        """As the contract says. Reads the disk."""
        try:
            about = self._path.stat()
            now = Stamp(modified=f"{about.st_mtime_ns}-{about.st_size}")
            if unless is not None and now == unless:
                return None
            if not self._path.is_file():
                raise refused("is no file", self._url, fix="name a folder with  --data PATH")
            return Body(0, about.st_size, now, self._pieces())
        except OSError as error:
            raise refused(f"cannot be read: {error.strerror or error}", self._url) from None

    def close(self) -> None:
        """Nothing is open."""

    def _pieces(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except OSError as error:
            raise refused(f"cannot be read: {error.strerror or error}", self._url) from None
