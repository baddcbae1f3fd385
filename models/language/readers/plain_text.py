"""Readers of plain text: prose in blocks, or conversations in `User:` and `Assistant:` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import groupby, islice
from operator import itemgetter

from models.common.data_files import BadRecords
from models.common.text_file import TextFile
from models.language.readers.records import Conversation, Document, Turn
from models.language.readers.text_file import split_pieces, with_line_ends

PIECE = 4096
"""Minimum number of characters of a document made of blocks, if the file is long minimum."""

PIECES = 50
"""Approximate number of documents of a shorter file."""

ROLES = {"user": "user", "assistant": "assistant", "system": "system"}
_ROLE = re.compile(r"^(User|Assistant|System):(?: |$)(.*)$")
_LOOKS_LIKE_ROLE = re.compile(r"^([A-Za-z]{3,12}) ?:(?: |$)")


def is_dialogue(line: str) -> bool:
    """Whether a text with this first line consists of conversations."""
    return _ROLE.match(line) is not None


def read_whole(file: TextFile, name: str) -> Iterator[Document]:
    """Read the file as one document."""
    for part in split_pieces(with_line_ends(file.lines())):
        yield Document(name, part)


def read_documents(file: TextFile, name: str) -> Iterator[Document]:
    """Read the documents of a single file: neighboring blocks, joined.

    Blocks stay whole. In a text without blank lines every line is a block.
    """
    minimum = min(PIECE, file.length(PIECE * PIECES) // PIECES)
    by_line = len(list(islice(_block_starts(file), 2))) == 1
    for number, pieces in groupby(_pieces(file, minimum, by_line), key=itemgetter(0)):
        for part in split_pieces(piece for _, piece in pieces):
            yield Document(f"{name}#{number:06}", part)


def _block_starts(file: TextFile) -> Iterator[str]:
    was_blank = True
    for line in file.lines():
        is_blank = not line.strip()
        if was_blank and not is_blank:
            yield line
        was_blank = is_blank


def _pieces(file: TextFile, minimum: int, by_line: bool) -> Iterator[tuple[int, str]]:
    """Lines with their document number and the line ends before them.

    A document ends with the block or line that brings it to `minimum` characters.
    """
    number = size = 0
    gap, in_block = "", False
    for line in file.lines():
        if line.strip():
            yield number, gap + line
            size += len(line) + (in_block and not by_line)
            gap, in_block = "\n", True
            is_full = by_line and size >= minimum
        else:
            is_full = in_block and size >= minimum
            gap, in_block = "\n\n" if gap else "", False
        if is_full:
            number, size, gap = number + 1, 0, ""


def read_conversations(
    file: TextFile, name: str, bad_records: BadRecords
) -> Iterator[Conversation]:
    """Read one conversation per sequence of blocks that starts with a User or System line."""
    last: Conversation | None = None
    for line, block in file.numbered_blocks():
        where = f"{name}:{line}"
        turns = _turns(block, where, bad_records)
        if turns is None:
            continue
        if turns[0].role == "assistant" and last is not None:
            # A blank line separates question and answer.
            last = Conversation(last.turns + turns, last.where)
            continue
        if last is not None:
            yield last
        last = Conversation(turns, where)
    if last is not None:
        yield last


def _turns(block: Sequence[str], where: str, bad_records: BadRecords) -> tuple[Turn, ...] | None:
    messages: list[tuple[str, list[str]]] = []
    for line in block:
        match = _ROLE.match(line)
        if match:
            messages.append((ROLES[match[1].lower()], [match[2]]))
            continue
        if near := _nearest_role(line):
            bad_records.add(where, f"unknown role '{line.split(':')[0]}:'; did you mean {near}:")
            return None
        if not messages:
            bad_records.add(where, "a block without a role; allowed: User: Assistant: System:")
            return None
        messages[-1][1].append(line)
    turns = tuple(Turn(role, "\n".join(lines)) for role, lines in messages)
    if empty := next((t for t in turns if not t.text.strip()), None):
        bad_records.add(where, f"{empty.role.capitalize()}: is empty")
        return None
    return turns


def _nearest_role(line: str) -> str | None:
    """Role similar to the first word of a line; None if there is none."""
    word = _LOOKS_LIKE_ROLE.match(line)
    near = get_close_matches(word[1].lower(), ROLES, n=1, cutoff=0.75) if word else []
    return near[0].capitalize() if near else None
