"""Texts without the control codes of a terminal: names and data may contain any."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with `�` for each character that is not shown, such as escape codes."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return " " if character.isspace() else "�"
