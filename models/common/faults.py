"""What could not be used of the data, gathered so that it is told together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.base import DataError

OnBad = Literal["stop", "skip"]
SHOWN = 3


@dataclass
class Faults:
    """Rows, files or windows that cannot be used; `noun` names them in the plural."""

    noun: str = "rows"
    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """One more, at `where` (file and line)."""
        self.rows.append((where, what))

    def settle(self, on_bad: OnBad, read: int) -> int:
        """How many were left out. Raises DataError if there are any and `on_bad` is stop.

        `read` counts those that can be used.
        """
        if self.rows and on_bad == "stop":
            told = [f"{where}: {what}" for where, what in self.rows[:SHOWN]]
            if len(self.rows) > SHOWN:
                told.append(f"and {len(self.rows) - SHOWN} more")
            raise DataError(
                f"{len(self.rows)} of {len(self.rows) + read} {self.noun} cannot be used",
                where="\n           ".join(told),
                mend="repair them, or leave them out with  --set data.on_bad=skip",
            )
        return len(self.rows)

    def told(self) -> list[str]:
        """The first few, for the facts of the data."""
        return [f"{where}: {what}" for where, what in self.rows[:SHOWN]]
