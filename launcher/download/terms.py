"""What binds the fetching of a file, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from launcher.download.progress import Draw, Tell


@dataclass(frozen=True)
class Terms:
    """The same for all files of one call."""

    retries: int
    """How often in a row a connection that broke is tried again."""
    most_bytes: int
    """That one file may have, as it is fetched and unpacked."""
    tell: Tell
    draw: Draw
    pause: Callable[[float], None]
    """Waits so many seconds."""
