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
    """The records of one text, cut at line ends into texts of about PART characters."""
    for text in _cut(lines, PART):
        yield document(name, text)


def _cut(lines: Iterable[str], minimum: int) -> Iterator[str]:
    """Texts of whole lines, of `minimum` characters or more but for the last one."""
    buffer: list[str] = []
    size = 0
    for line in lines:
        buffer.append(line)
        size += len(line) + 1
        if size >= minimum:
            yield "\n".join(buffer)
            buffer = []
            size = 0
    if any(line.strip() for line in buffer):
        yield "\n".join(buffer)


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
    blocks = (is_text for is_text, _ in groupby(file.lines(), _is_text) if is_text)
    by_line = len(list(islice(blocks, 2))) == 1
    number = 0
    size = 0
    buffer: list[str] = []
    for is_text, lines in groupby(file.lines(), _is_text):
        if not is_text:
            continue
        for text in _cut(lines, 1 if by_line else PART):
            buffer.append(text)
            size += len(text)
            if size >= minimum:
                yield _numbered(file, number, buffer, by_line)
                number += 1
                size = 0
                buffer = []
    if buffer:
        yield _numbered(file, number, buffer, by_line)


def _is_text(line: str) -> bool:
    return bool(line.strip())


def _numbered(file: TextFile, number: int, blocks: list[str], by_line: bool) -> Record:
    return document(f"{file.name}#{number:06}", ("\n" if by_line else "\n\n").join(blocks))


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
