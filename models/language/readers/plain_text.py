"""Plain text: prose in blocks, or `User:` and `Assistant:` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import groupby, islice
from operator import itemgetter

from models.common.data_files import BadRecords
from models.language.readers.records import Conversation, Document, Turn
from models.language.readers.text_file import TextFile, split_pieces, with_line_ends

PIECE = 4096
"""Characters that a document made of blocks has at least, where the file is long enough."""

PIECES = 50
"""Documents that a shorter file is cut into, about."""

ROLES = {"user": "user", "assistant": "assistant", "system": "system"}
_ROLE = re.compile(r"^(User|Assistant|System):(?: |$)(.*)$")
_LOOKS_LIKE_ROLE = re.compile(r"^([A-Za-z]{3,12}) ?:(?: |$)")


def is_dialogue(line: str) -> bool:
    """Whether a text that begins with this line is made of conversations."""
    return _ROLE.match(line) is not None


def read_whole(file: TextFile, name: str) -> Iterator[Document]:
    """The file as one document."""
    for part in split_pieces(with_line_ends(file.lines())):
        yield Document(name, part)


def read_documents(file: TextFile, name: str) -> Iterator[Document]:
    """The documents of one file that is all there is: neighbouring blocks, joined.

    Blocks stay whole. A text without blank lines is taken line by line.
    """
    enough = min(PIECE, file.length(PIECE * PIECES) // PIECES)
    by_line = len(list(islice(_block_starts(file), 2))) == 1
    for number, pieces in groupby(_pieces(file, enough, by_line), key=itemgetter(0)):
        for part in split_pieces(piece for _, piece in pieces):
            yield Document(f"{name}#{number:06}", part)


def _block_starts(file: TextFile) -> Iterator[str]:
    """The first line of each block."""
    was_blank = True
    for line in file.lines():
        is_blank = not line.strip()
        if was_blank and not is_blank:
            yield line
        was_blank = is_blank


def _pieces(file: TextFile, enough: int, by_line: bool) -> Iterator[tuple[int, str]]:
    """Each line with the number of its document and the line ends before it.

    A document ends with the block, or line, that makes it `enough` characters.
    """
    number = size = 0
    gap, in_block = "", False
    for line in file.lines():
        if line.strip():
            yield number, gap + line
            size += len(line) + (in_block and not by_line)
            gap, in_block = "\n", True
            is_full = by_line and size >= enough
        else:
            is_full = in_block and size >= enough
            gap, in_block = "\n\n" if gap else "", False
        if is_full:
            number, size, gap = number + 1, 0, ""


def read_conversations(file: TextFile, name: str, faults: BadRecords) -> Iterator[Conversation]:
    """One conversation for each run of blocks that starts with a User or System line."""
    last: Conversation | None = None
    for line, block in file.numbered_blocks():
        where = f"{name}:{line}"
        turns = _turns(block, where, faults)
        if turns is None:
            continue
        if turns[0].role == "assistant" and last is not None:
            # A blank line between question and answer.
            last = Conversation(last.turns + turns, last.where)
            continue
        if last is not None:
            yield last
        last = Conversation(turns, where)
    if last is not None:
        yield last


def _turns(block: Sequence[str], where: str, faults: BadRecords) -> tuple[Turn, ...] | None:
    said: list[tuple[str, list[str]]] = []
    for line in block:
        match = _ROLE.match(line)
        if match:
            said.append((ROLES[match[1].lower()], [match[2]]))
            continue
        if near := _misspelt(line):
            faults.add(where, f"'{line.split(':')[0]}:' is no role; nearest  {near}:")
            return None
        if not said:
            faults.add(where, "a block that begins with no role; legal  User: Assistant: System:")
            return None
        said[-1][1].append(line)
    turns = tuple(Turn(role, "\n".join(lines)) for role, lines in said)
    if empty := next((t for t in turns if not t.text.strip()), None):
        faults.add(where, f"{empty.role.capitalize()}: says nothing")
        return None
    return turns


def _misspelt(line: str) -> str | None:
    """The role that a line's first word nearly is."""
    word = _LOOKS_LIKE_ROLE.match(line)
    near = get_close_matches(word[1].lower(), ROLES, n=1, cutoff=0.75) if word else []
    return near[0].capitalize() if near else None
