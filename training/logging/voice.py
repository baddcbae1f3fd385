"""What tells a person how a run goes: the contract of the plain, the terminal and the log voice."""

from __future__ import annotations

from typing import Literal, Protocol

from training.logging.progress import Position

Kind = Literal["head", "train", "evaluated", "best", "saved", "notice", "warning", "summary", "log"]
"""What a text is about; "log" is for the log file only."""


class Voice(Protocol):
    """One place that texts go to."""

    draws: bool
    """Whether `draw` shows anything, so that nobody works out positions for nothing."""

    def say(self, kind: Kind, text: str) -> None:
        """Add `text`, one line or more."""

    def show(self, title: str, text: str) -> None:
        """Add a longer `text` under its title, such as what the model wrote."""

    def draw(self, position: Position, units: str, use: str) -> None:
        """Show where the run stands, in place of what was shown before; `use` is the machine's."""

    def close(self) -> None:
        """Leave the place as it was found; nothing is said afterwards."""
