"""The result of one check, and the line that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher.base.redaction import redact
from training.logging.printable import printable


@dataclass(frozen=True)
class Check:
    """What a check found."""

    name: str
    status: Literal["ok", "warning", "failure"]
    found: str
    fix: str | None = None
    """What to do; None: nothing."""

    @property
    def text(self) -> str:
        """The lines for people."""
        fix = "" if self.fix is None else f"\n{'':<23}fix: {self.fix}"
        return printable(redact(f"{self.status:<8} {self.name:<13} {self.found}{fix}"))


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, "ok", found)


def warning(name: str, found: str, fix: str) -> Check:
    """Something does not work or is slow, and training is possible."""
    return Check(name, "warning", found, fix)


def failure(name: str, found: str, fix: str) -> Check:
    """Training is impossible, or fails sooner or later."""
    return Check(name, "failure", found, fix)
