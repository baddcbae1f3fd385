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
    count: int = 0
    rows: list[tuple[str, str]] = field(default_factory=list)
    """The first few: a file of another kind may have millions."""

    def add(self, where: str, what: str) -> None:
        """One more, at `where` (file and line)."""
        self.count += 1
        if len(self.rows) < SHOWN:
            self.rows.append((where, what))

    def back_to(self, count: int) -> None:
        """Forget all but the first `count`."""
        self.count = count
        del self.rows[count:]

    def settle(self, on_bad: OnBad, read: int) -> int:
        """How many were left out. Raises DataError if there are any and `on_bad` is stop.

        `read` counts those that can be used.
        """
        if self.count and on_bad == "stop":
            told = self.told()
            if self.count > SHOWN:
                told.append(f"and {self.count - SHOWN} more")
            raise DataError(
                f"{self.count} of {self.count + read} {self.noun} cannot be used",
                where="\n           ".join(told),
                fix="repair them, or leave them out with  --set data.on_bad=skip",
            )
        return self.count

    def told(self) -> list[str]:
        """The first few, for the facts of the data."""
        return [f"{where}: {what}" for where, what in self.rows]
