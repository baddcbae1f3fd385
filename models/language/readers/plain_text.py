"""Files of text, their kinds, and prose or conversations read from plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Literal

from models.base import DataError
from models.common import data_files
from models.common.data_files import BadRecords
from models.common.text_file import GZIP, TextFile
from models.language.readers.records import Conversation, Document, Turn

TEXT = frozenset({
    ".txt", ".text", ".md", ".rst", ".tex", ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp",
    ".cu", ".java", ".js", ".ts", ".go", ".rs", ".rb", ".sh", ".r", ".jl", ".lua", ".sql",
    ".html", ".xml", ".css", ".toml", ".yaml", ".yml",
})  # fmt: skip
FORMATS = (
    "CSV with columns for a request and an answer, or with text",
    "JSONL with keys for a request and an answer, with messages, or with text",
    "a JSON array of such objects",
    "Parquet with such columns",
    "plain text, documentation and source code",
)
"""Formats of the family, as `list` and error messages name them."""
Kind = Literal["CSV", "JSONL", "JSON", "Parquet", "text"]
_KINDS: Mapping[str, Kind] = {
    ".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL",
    ".json": "JSON", ".parquet": "Parquet",
}  # fmt: skip
SUFFIXES = TEXT | _KINDS.keys()


def suffix_of(file: Path) -> str:
    """The suffix in lower case, without that of gzip."""
    return Path(file.name.lower().removesuffix(GZIP)).suffix


def file_kind(file: Path) -> Kind:
    """Kind of a file by its suffix."""
    return _KINDS.get(suffix_of(file), "text")


def find_files(path: Path, has_rows: Callable[[TextFile], bool]) -> tuple[list[Path], int]:
    """Files to read under `path`, sorted, and the number of ignored files.

    A single file may have any suffix; a folder gives its visible files of a known suffix at any
    depth, except JSON files for which `has_rows` is False. Raises DataError if there is none or a
    folder is not readable.
    """
    allowed = "a file or folder of text, JSON, CSV or Parquet; embedded:python, embedded:commands"
    if not data_files.existing_path(str(path), allowed).is_dir():
        return [path], 0
    files = data_files.files(path)
    known = [file for file in files if suffix_of(file) in SUFFIXES]
    chosen = [file for file in known if file_kind(file) != "JSON" or has_rows(TextFile(file))]
    if not chosen:
        raise DataError(
            f"data.path '{path}' has no file with a known suffix ({len(files)} other files)",
            allowed=" ".join(sorted(SUFFIXES)),
            fix="give the path of one file: a single file may have any suffix",
        )
    return chosen, len(files) - len(chosen)


PART = 1 << 18
"""Characters of a part: the tokenizers library takes some hundred bytes per character."""

LONGEST = 4 * PART
"""Characters after which a part ends at the next line in any case."""


def split_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Join `pieces` into parts of about PART characters; a shorter text is one part.

    A cut lies between two lines that end and begin with a visible character. No token, case rule or
    whitespace run of a byte-level tokenizer crosses such a cut, so the parts give the tokens and
    the fingerprint of the whole. `pieces` begin with their line ends; cuts lie before a piece.
    """
    buffer: list[str] = []
    size = 0
    for piece in pieces:
        if size >= PART and (_is_seam(buffer[-1], piece) or size >= LONGEST):
            yield "".join(buffer)
            buffer, size = [], 0
        buffer.append(piece)
        size += len(piece)
    if buffer:
        yield "".join(buffer)


def split_text(text: str) -> Iterator[str]:
    """Split `text` into parts; see split_pieces."""
    return iter((text,)) if len(text) < PART else split_pieces(with_line_ends(text.split("\n")))


def with_line_ends(lines: Iterable[str]) -> Iterator[str]:
    """Lines, each but the first preceded by a line end."""
    end = ""
    for line in lines:
        yield end + line
        end = "\n"


def _is_seam(before: str, after: str) -> bool:
    is_visible = [c != "" and not c.isspace() for c in (before[-1:], after[1:2])]
    return all(is_visible) and after[0] == "\n"


PIECE = 4096
"""Minimum number of characters of a document made of blocks, if the file is long minimum."""

PIECES = 50
"""Approximate number of documents of a shorter file."""

ROLES = ("user", "assistant", "system")
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


def read_conversations(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[Conversation]:
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
            messages.append((match[1].lower(), [match[2]]))
            continue
        word = _LOOKS_LIKE_ROLE.match(line)
        similar = get_close_matches(word[1].lower(), ROLES, n=1, cutoff=0.75) if word else []
        if similar:
            problem = f"unknown role '{line.split(':')[0]}:'; did you mean {similar[0].title()}:"
            bad_records.add(where, problem)
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
