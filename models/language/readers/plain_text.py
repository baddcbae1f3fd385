"""Plain text: prose in blocks, or `User:` and `Assistant:` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from models.common.faults import Faults
from models.language.records import Conversation, Document, Turn

PIECE = 4096
"""Characters that a document made of blocks has at least, where the file is long enough."""

PIECES = 50
"""Documents that a shorter file is cut into, about."""

ROLES = {"user": "user", "assistant": "assistant", "system": "system"}
_ROLE = re.compile(r"^(User|Assistant|System):(?: |$)(.*)$")
_LOOKS_LIKE_ROLE = re.compile(r"^([A-Za-z]{3,12}) ?:(?: |$)")


@dataclass(frozen=True)
class Block:
    """Lines without a blank one between them; `line` is the number of the first."""

    line: int
    lines: list[str]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of `text`, which blank lines separate."""
    start = 1
    lines: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            if not lines:
                start = number
            lines.append(line)
        elif lines:
            yield Block(start, lines)
            lines = []
    if lines:
        yield Block(start, lines)


def is_dialogue(text: str) -> bool:
    """Whether the first line that is not blank begins with a role."""
    first = next(blocks(text), None)
    return first is not None and _ROLE.match(first.lines[0]) is not None


def read_documents(text: str, name: str) -> list[Document]:
    """The documents of one file that is all there is: neighbouring blocks, joined.

    Blocks stay whole. A text without blank lines is taken line by line.
    """
    units = ["\n".join(b.lines) for b in blocks(text)]
    gap = "\n\n"
    if len(units) == 1:
        units, gap = units[0].split("\n"), "\n"
    enough = min(PIECE, len(text) // PIECES)
    documents: list[Document] = []
    held: list[str] = []
    size = 0
    for unit in units:
        held.append(unit)
        size += len(unit)
        if size >= enough:
            documents.append(Document(f"{name}#{len(documents):06}", gap.join(held)))
            held, size = [], 0
    if held:
        documents.append(Document(f"{name}#{len(documents):06}", gap.join(held)))
    return documents


def read_conversations(text: str, name: str, faults: Faults) -> list[Conversation]:
    """One conversation for each run of blocks that starts with a User or System line."""
    conversations: list[Conversation] = []
    for block in blocks(text):
        where = f"{name}, line {block.line}"
        turns = _turns(block, where, faults)
        if turns is None:
            continue
        if turns[0].role == "assistant" and conversations:
            # A blank line between question and answer.
            last = conversations.pop()
            conversations.append(Conversation(last.turns + turns, last.where))
        else:
            conversations.append(Conversation(turns, where))
    return conversations


def _turns(block: Block, where: str, faults: Faults) -> tuple[Turn, ...] | None:
    turns: list[Turn] = []
    for line in block.lines:
        match = _ROLE.match(line)
        if match:
            turns.append(Turn(ROLES[match[1].lower()], match[2]))
            continue
        if near := _misspelt(line):
            faults.add(where, f"'{line.split(':')[0]}:' is no role; nearest  {near}:")
            return None
        if not turns:
            faults.add(where, "a block that begins with no role; legal  User: Assistant: System:")
            return None
        turns[-1] = Turn(turns[-1].role, f"{turns[-1].text}\n{line}")
    if empty := next((t for t in turns if not t.text.strip()), None):
        faults.add(where, f"{empty.role.capitalize()}: says nothing")
        return None
    return tuple(turns)


def _misspelt(line: str) -> str | None:
    """The role that a line's first word nearly is."""
    word = _LOOKS_LIKE_ROLE.match(line)
    near = get_close_matches(word[1].lower(), ROLES, n=1, cutoff=0.75) if word else []
    return near[0].capitalize() if near else None
