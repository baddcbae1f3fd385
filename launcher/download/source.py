"""The contract of what a file is fetched from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from launcher.download.record import Stamp


@dataclass(frozen=True)
class Body:
    """The bytes of a file, from some place on."""

    start: int
    """Where they begin: where they were asked for, or 0."""
    total: int | None
    """Bytes of the whole file; None: not known before the end."""
    stamp: Stamp
    pieces: Iterator[bytes]
    """Raises Transient where they break off."""


class Source(Protocol):
    """Where one file comes from."""

    def open(self, start: int, stamp: Stamp, unless: Stamp | None) -> Body | None:
        """The bytes from `start` on, of the state `stamp`; else all of them, from 0.

        None: the file is still in the state `unless`. Raises Transient, StartOver, and
        SettingsError where another attempt would come to the same.
        """

    def close(self) -> None:
        """Let go of connections."""
