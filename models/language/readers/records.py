"""What reading gives: documents or conversations, and the exchanges in these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text that is learnt as it stands; `group` is never on two sides of a split.

    Each document is a group of its own. A long one comes in parts, one after the other.
    """

    group: str
    text: str


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation said; `role` is system, user, assistant or tool."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order, read from `where`."""

    turns: tuple[Turn, ...]
    where: str
    group: str = ""
    """Never on two sides of a split. Empty: the first request decides."""
    label: str = ""
    """The kind of request, between which the noise control permutes. Empty: the request itself."""


Record = Document | Conversation


@dataclass(frozen=True)
class Exchange:
    """One answer and all that was said before it."""

    before: tuple[Turn, ...]
    answer: str
    group: str
    label: str
    where: str
    matched: bool = False
    """In a noise control: the answer is the true one, kept only to be compared with."""
