"""Texts for the user: names and data without the control codes of a terminal, errors in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TrackerError(Exception):
    """A message for the user, such as what to set up."""


def printable(text: str) -> str:
    """`text` with `�` for each character that is not shown, such as escape codes."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in "\n\t" else " " if c.isspace() else "�" for c in text)
    return "".join(shown)


@contextmanager
def caught(tell: Callable[[str], object]) -> Iterator[None]:
    """Tell an error in one line, and continue: the border of the trackers, and of a task's samples."""
    try:
        yield
    except Exception as error:
        tell(describe(error))


def describe(error: BaseException) -> str:
    """The type of `error` and the first line of its message; of a TrackerError the message."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, TrackerError) else f"{type(error).__name__}: {text}"
