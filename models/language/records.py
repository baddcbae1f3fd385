"""What reading gives: documents or exchanges, and the rows that could not be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.base import DataError

OnBad = Literal["stop", "skip"]
SHOWN = 3


@dataclass(frozen=True)
class Document:
    """A text that is learnt as it stands; `group` is never on two sides of a split."""

    group: str
    text: str


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation said; `role` is system, user, assistant or tool."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order, read from `where`."""

    turns: tuple[Turn, ...]
    where: str
    group: str = ""
    """Never on two sides of a split. Empty: the first request decides."""
    label: str = ""
    """The kind of request, between which the noise control permutes. Empty: the request itself."""


@dataclass(frozen=True)
class Exchange:
    """One answer and all that was said before it."""

    before: tuple[Turn, ...]
    answer: str
    group: str
    label: str
    where: str
    matched: bool = False
    """In a noise control: the answer is the true one, kept only to be compared with."""


@dataclass
class Faults:
    """Rows that cannot be used, gathered so that they can be told together."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """One more row, at `where` (file and line)."""
        self.rows.append((where, what))

    def settle(self, on_bad: OnBad, read: int) -> int:
        """How many rows were left out. Raises DataError if there are any and `on_bad` is stop.

        `read` counts the rows that can be used.
        """
        if self.rows and on_bad == "stop":
            told = [f"{where}: {what}" for where, what in self.rows[:SHOWN]]
            if len(self.rows) > SHOWN:
                told.append(f"and {len(self.rows) - SHOWN} more")
            raise DataError(
                f"{len(self.rows)} of {len(self.rows) + read} rows cannot be used",
                where="\n           ".join(told),
                mend="repair them, or leave them out with  --set data.on_bad=skip",
            )
        return len(self.rows)
