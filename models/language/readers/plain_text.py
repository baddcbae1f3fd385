"""Documents of plain text, and the exchanges of two parallel files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice, zip_longest
from shlex import quote

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.text_file import TextFile, parse_json
from gearshift.models.language.readers.records import Record, Turn, document, exchanges

PART = 1 << 18
"""Characters after which a text is cut: tokenizers takes some hundred bytes for each."""
PIECE = 4096
"""Minimum number of characters of a document made of blocks, if the file is long enough."""
PIECES = 50
"""Approximate number of documents of a shorter file."""


def records_of(lines: Iterable[str], name: str) -> Iterator[Record]:
    """The records of one text, cut at line ends into texts of PART characters or more."""
    buffer: list[str] = []
    size = 0
    for line in lines:
        buffer.append(line)
        size += len(line) + 1
        if size >= PART:
            yield document(name, "\n".join(buffer))
            buffer = []
            size = 0
    if any(line.strip() for line in buffer):
        yield document(name, "\n".join(buffer))


def read_whole(file: TextFile) -> Iterator[Record]:
    """The file as one text, which may come in parts."""
    file.first_line()  # raises DataError if the file is empty
    yield from records_of(file.lines(), file.name)


def read_documents(file: TextFile) -> Iterator[Record]:
    """The documents of one of few files: neighboring blocks, joined up to PIECE characters.

    Blocks stay whole, up to PART. In a text without blank lines every line is a block.
    """
    with suppress(ValueError):
        if isinstance(parse_json(file.first_line()), dict):
            raise DataError(
                f"'{file.name}' is not text, but lines of JSON",
                where=f"data.path, {file.path}",
                allowed="lines of JSON in a file with the suffix .jsonl",
                hint=f"rename it, such as  mv {quote(file.name)} {quote(file.name)}.jsonl",
            )
    minimum = min(PIECE, len(next(file.chunks())) // PIECES)
    blocks = groupby(file.lines(), lambda line: bool(line.strip()))
    texts = (True for is_text, _ in blocks if is_text)
    by_line = len(list(islice(texts, 2))) == 1
    number = 0
    size = 0
    buffer: list[str] = []
    for line in file.lines():
        in_block = bool(buffer and buffer[-1])
        if line.strip():
            buffer.append(line)
            size += len(line) + (in_block and not by_line)
            is_full = size >= (minimum if by_line else PART)
        else:
            if in_block:
                buffer.append("")
            is_full = in_block and size >= minimum
        if is_full:
            yield _numbered(buffer, file.name, number)
            number += 1
            size = 0
            buffer = []
    if buffer:
        yield _numbered(buffer, file.name, number)


def _numbered(lines: list[str], name: str, number: int) -> Record:
    return document(f"{name}#{number:06}", "\n".join(lines).rstrip("\n"))


def read_parallel(
    requests: TextFile,
    answers: TextFile,
    bad_records: BadRecords,
) -> Iterator[Record]:
    """Line N of `answers` answers line N of `requests`. Raises DataError if one has more lines."""
    for file in (requests, answers):
        file.first_line()  # raises DataError if the file is empty
    both = (map(str.rstrip, file.lines_with_ends()) for file in (requests, answers))
    for line, (request, answer) in enumerate(zip_longest(*both), start=1):
        if request is None or answer is None:
            raise DataError(
                f"'{requests.path}' and '{answers.path}' have different numbers of lines",
                where=f"data.path and data.answers, line {line}",
                allowed="two files with the same number of lines",
            )
        where = f"{requests.path.name}:{line}"
        if not request or not answer:
            bad_records.add(where, "the request or the answer is empty")
        else:
            yield from exchanges((Turn("user", request), Turn("assistant", answer)), where)
