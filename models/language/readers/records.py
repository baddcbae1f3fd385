"""Records of the readers: documents, conversations and their exchanges."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text; each document is a group of its own and belongs to one split.

    A long document comes in consecutive parts of the same `group`.
    """

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
