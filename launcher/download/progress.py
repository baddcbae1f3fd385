"""How far a file has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where one file stands."""

    name: str
    done_bytes: int
    total_bytes: int | None
    """None: the server does not say."""
    new_bytes: int
    """Of those that are done, what this attempt has fetched."""
    is_unpacking: bool = False


Tell = Callable[[str], None]
"""Told what is worth a line."""
Draw = Callable[[Progress], None]
"""Shown, often, how far a file has come."""


def undrawn(progress: Progress) -> None:
    """For who does not draw."""
