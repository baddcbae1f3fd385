"""What the readers yield: texts, and answers with the turns before them; and a source in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gearshift.models.common.data_files import BadRecords

PIECE_MARK = "#part "
"""Before the number of a part of a text that is cut."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role` is system, user or assistant."""

    role: str
    text: str
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
    turns: tuple[Turn, ...] = ()
    """The conversation: equal in all records of it."""
    at: int = 0
    """The number of the answer among `turns`."""
    label: str = ""
    """Kind of request; the noise control permutes answers between kinds."""

    @property
    def before(self) -> tuple[Turn, ...]:
        return self.turns[: self.at]

    @property
    def conversation(self) -> tuple[Turn, ...]:
        """The turns up to the answer."""
        return self.turns[: self.at + 1]


def document(name: str, text: str) -> Record:
    """The record of a text."""
    return Record(name, name, text)


def exchanges(turns: Sequence[Turn], where: str, group: str = "", label: str = "") -> list[Record]:
    """One record per answer that is learned. By default the first request is group and label."""
    opening = normalized(next((turn.text for turn in turns if turn.role == "user"), ""))
    conversation = tuple(turns)
    group = group or hashlib.sha256(opening.encode()).hexdigest()[:16]
    return [
        Record(group, where, turn.text.strip(), conversation, at, label or opening)
        for at, turn in enumerate(turns)
        if turn.role == "assistant" and at > 0 and turn.learned and turn.text.strip()
    ]


def normalized(text: str) -> str:
    """`text` in lower case with single spaces, for comparing requests."""
    return " ".join(text.lower().split())


class RecordSource:
    """Records in memory; one part."""

    format = "embedded"
    size = 0
    stamp = ""
    parts = 1
    ignored = 0
    note = ""
    is_cut = False

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name = name
        self._records = records

    def part_name(self, part: int) -> str:
        return self.name

    def read(self, part: int, bad_records: BadRecords) -> Iterator[Record]:
        return iter(self._records)

    def current_stamp(self) -> str:
        return self.stamp
