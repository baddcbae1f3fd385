"""Texts without the control codes of a terminal: names and data may contain any."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with `�` for each character that is not shown, such as escape codes."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in "\n\t" else " " if c.isspace() else "�" for c in text)
    return "".join(shown)
