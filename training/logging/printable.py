"""Texts without the control codes of a terminal, and errors as texts of one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """`text` with `�` for each character that is not shown, such as escape codes."""
    if text.isprintable():
        return text
    characters = []
    for c in text:
        if c.isprintable() or c in "\n\t":
            characters.append(c)
        else:
            characters.append(" " if c.isspace() else "�")
    return "".join(characters)


@contextmanager
def caught(tell: Callable[[str], object]) -> Iterator[None]:
    """Tell an error in one line, and continue: the border of trackers, and of a task's samples."""
    try:
        yield
    except Exception as error:
        tell(describe(error))


def describe(error: BaseException) -> str:
    """The type of `error` and the first line of its message."""
    return f"{type(error).__name__}: " + str(error).strip().partition("\n")[0]
