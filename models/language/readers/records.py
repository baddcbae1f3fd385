"""Records of the readers: documents, conversations and their exchanges."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text. Texts of one `group` belong to one split, such as the parts of a long file."""

    group: str
    text: str


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role` is system, user or assistant."""

    role: str
    text: str
    learned: bool = True
    """Whether it counts in the loss, if it is an answer."""


@dataclass(frozen=True)
class Conversation:
    """Turns in order; `where` is the file and line."""

    turns: tuple[Turn, ...]
    where: str
    group: str = ""
    """A group belongs to one split. Empty: the first request is the group."""
    label: str = ""
    """Kind of request; the noise control permutes between kinds. Empty: the request itself."""


Record = Document | Conversation


@dataclass(frozen=True)
class Exchange:
    """One answer and all turns before it."""

    before: tuple[Turn, ...]
    reply: Turn
    group: str
    label: str
    where: str

    @property
    def answer(self) -> str:
        """The text of the answer."""
        return self.reply.text.strip()


def exchanges_in(conversation: Conversation) -> list[Exchange]:
    """One exchange per answer that is learned, with all turns before it."""
    turns = conversation.turns
    opening = normalized(next((t.text for t in turns if t.role == "user"), ""))
    group = conversation.group or hashlib.sha256(opening.encode()).hexdigest()[:16]
    label = conversation.label or opening
    return [
        Exchange(turns[:i], turn, group, label, conversation.where)
        for i, turn in enumerate(turns)
        if turn.role == "assistant" and i > 0 and turn.learned and turn.text.strip()
    ]


def normalized(text: str) -> str:
    """`text` in lower case with single spaces, for comparing requests."""
    return " ".join(text.lower().split())
