"""What the readers yield: texts, and answers with the turns before them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from gearshift.models.base import Message


@dataclass(frozen=True)
class Turn(Message):
    """One message of a conversation that is learned."""

    learned: bool = True
    """Whether it counts in the loss, if it is an answer."""


@dataclass(frozen=True)
class Record:
    """A text; or an answer, without spaces around it, and its conversation."""

    group: str
    """Records of one group belong to one split, such as the parts of a long file."""
    where: str
    """The name of the text, or file and line of the conversation."""
    text: str
    turns: tuple[Message, ...] = ()
    """The conversation: equal in all records of it."""
    at: int = 0
    """The number of the answer among `turns`."""
    label: str = ""
    """Kind of request; the noise control permutes answers between kinds."""

    @property
    def before(self) -> tuple[Message, ...]:
        return self.turns[: self.at]

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The turns up to the answer."""
        return self.turns[: self.at + 1]


def document(name: str, text: str) -> Record:
    """The record of a text."""
    return Record(name, name, text)


def exchanges(turns: Sequence[Turn], where: str) -> list[Record]:
    """One record per answer that is learned. The first request is group and label."""
    opening = normalized(next((turn.text for turn in turns if turn.role == "user"), ""))
    group = hashlib.sha256(opening.encode()).hexdigest()[:16]
    records = []
    for at, turn in enumerate(turns):
        text = turn.text.strip()
        if turn.role == "assistant" and at > 0 and turn.learned and text:
            records.append(Record(group, where, text, tuple(turns), at, opening))
    return records


def normalized(text: str) -> str:
    """`text` in lower case with single spaces, for comparing requests."""
    return " ".join(text.lower().split())
