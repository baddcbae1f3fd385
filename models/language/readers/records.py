"""What the readers yield: texts, and answers with the turns before them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role` is system, user or assistant."""

    role: str
    text: str
    learned: bool = True
    """Whether it counts in the loss, if it is an answer."""


@dataclass(frozen=True)
class Record:
    """A text; or an answer, without spaces around it, and all turns before it."""

    group: str
    """Records of one group belong to one split, such as the parts of a long file."""
    where: str
    """The name of the text, or file and line of the conversation."""
    text: str
    before: tuple[Turn, ...] = ()
    label: str = ""
    """Kind of request; the noise control permutes answers between kinds."""


def document(name: str, text: str) -> Record:
    """The record of a text."""
    return Record(name, name, text)


def exchanges(turns: Sequence[Turn], where: str, group: str = "", label: str = "") -> list[Record]:
    """One record per answer that is learned. By default the first request is group and label."""
    opening = normalized(next((turn.text for turn in turns if turn.role == "user"), ""))
    group = group or hashlib.sha256(opening.encode()).hexdigest()[:16]
    return [
        Record(group, where, turn.text.strip(), tuple(turns[:i]), label or opening)
        for i, turn in enumerate(turns)
        if turn.role == "assistant" and i > 0 and turn.learned and turn.text.strip()
    ]


def normalized(text: str) -> str:
    """`text` in lower case with single spaces, for comparing requests."""
    return " ".join(text.lower().split())
