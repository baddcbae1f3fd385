"""Documents of plain text, and the exchanges of two parallel files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, groupby, islice, zip_longest
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
FEWEST = 3
"""Documents, or files, that can be split: one each to train, to validate and to test."""
SHORTEST = 64
"""Minimum number of characters of a document that is cut out of a line."""


def records_of(lines: Iterable[str], name: str) -> Iterator[Record]:
    """The records of one text, cut at line ends into texts of about PART characters.

    None of a blank text, such as an empty `__init__.py` among source files.
    """
    for text in _joined(lines, PART, "\n"):
        yield document(name, text)


def _joined(pieces: Iterable[str], minimum: int, separator: str) -> Iterator[str]:
    """Texts of whole pieces, with `minimum` characters in them or more but for the last text."""
    buffer: list[str] = []
    size = 0
    for piece in pieces:
        buffer.append(piece)
        size += len(piece)
        if size >= minimum:
            yield separator.join(buffer)
            buffer = []
            size = 0
    if any(map(str.strip, buffer)):
        yield separator.join(buffer)


def read_documents(file: TextFile, meanings: dict[str, str]) -> Iterator[Record]:
    """The documents of one of few files: neighboring blocks, joined up to PIECE characters.

    Blocks stay whole, up to PART. In a text without blank lines every line is a block, and one
    without lines is cut between words, which `meanings` says then.
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
    lines = filter(str.strip, file.lines())
    if _has_several(_blocks(file)):
        parts = (_joined(block, PART, "\n") for block in _blocks(file))
        texts = _joined(chain.from_iterable(parts), minimum, "\n\n")
    elif _has_several(line for line in file.lines() if line.strip()):
        texts = _joined(lines, minimum, "\n")
    else:
        size = max(minimum, SHORTEST)
        meanings[file.name] = f"a text without lines, cut between words after {size:,} letters"
        texts = chain.from_iterable(_cut(line, size) for line in lines)
    for number, text in enumerate(texts):
        yield document(f"{file.name}#{number:06}", text)


def _has_several(blocks: Iterable[object]) -> bool:
    """Whether there are enough for training, validation and a test."""
    return len(list(islice(blocks, FEWEST))) == FEWEST


def _cut(text: str, size: int) -> Iterator[str]:
    """Parts of `text` of at least `size` letters, which end before a space if one is near."""
    begin = 0
    while begin < len(text):
        end = begin + size
        space = text.find(" ", end, end + size)
        if space >= 0:
            end = space
        yield text[begin:end]
        begin = end


def _blocks(file: TextFile) -> Iterator[Iterator[str]]:
    """The lines of each block, in order: neighboring lines that are not blank."""
    for is_blank, lines in groupby(file.lines(), lambda line: not line.strip()):
        if not is_blank:
            yield lines


def read_parallel(
    requests: TextFile,
    answers: TextFile,
    bad_records: BadRecords,
) -> Iterator[Record]:
    """Line N of `answers` answers line N of `requests`. Raises DataError if one has more lines."""
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
