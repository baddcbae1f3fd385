"""Lines of JSON with the pairs of any file: the file itself, or a copy of it in the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.cache import ArrayFile
from models.common.data_files import BadRecords, identity, unreadable_file
from models.common.table import Table, is_table, open_table
from models.common.text_file import TextFile

_VERSION = 1


@dataclass(frozen=True)
class Lines:
    """Lines of JSON in UTF-8, each with the number that it has in the file of the user.

    Of a table, the line of a row is an object by column, and that of a bad row is a list of its
    problem and fix.
    """

    path: Path
    start: int = 0
    """Byte of `path` at which the first line begins."""
    header: tuple[str, ...] | None = None
    """The columns of a table; None: JSON."""
    notes: tuple[str, ...] = ()
    """What was assumed of the file."""
    fix: str = ""
    """Of lines that are not UTF-8."""


def lines_of(path: Path) -> Lines:
    """The lines of a file of JSON Lines, or of a table; only UTF-8 JSON Lines need no copy.

    Reads the file; writes the cache. Raises DataError.
    """
    file = TextFile(path)
    try:
        file_identity, is_packed = identity(path), file.is_packed()
    except OSError as error:
        raise unreadable_file(path, error) from None
    if not is_table(path) and not is_packed:
        try:
            for _ in file.chunks():
                pass
        except DataError as error:
            return Lines(path, fix=error.fix)
        if file.encoding == "utf-8":
            return Lines(path)
    made_from = {"version": _VERSION, "path": str(path.resolve()), "file": file_identity}
    write, size = partial(_write, path), file_identity[0]
    copied = cache.streamed("doc-translation-pairs", made_from, write, size)
    facts = json.loads(copied["facts"].tobytes())
    header, lines = facts["header"], copied["lines"]
    assert isinstance(lines, np.memmap) and lines.filename is not None
    return Lines(
        Path(lines.filename), lines.offset, header and tuple(header), tuple(facts["notes"])
    )


def _write(path: Path, new: cache.Open) -> None:
    """Write the arrays of a copy. Raises DataError."""
    lines, header = ArrayFile(new("lines"), np.uint8), None
    if is_table(path):
        table = open_table(path)
        header = _names(table)
        for raw in _table_lines(table, header):
            lines.append(np.frombuffer(raw, np.uint8))
        notes = [*table.notes]
    else:
        file = TextFile(path)
        for chunk in file.chunks():
            lines.append(np.frombuffer(chunk.encode(), np.uint8))
        notes = [file.note] if file.note else []
    lines.finish()
    facts = ArrayFile(new("facts"), np.uint8)
    text = json.dumps({"header": header, "notes": [f"{path.name}: {note}" for note in notes]})
    facts.append(np.frombuffer(text.encode(), np.uint8))
    facts.finish()


def _names(table: Table) -> list[str]:
    """The names of the columns. Raises DataError if two have one name."""
    names = [str("" if name is None else name).strip() for name in table.header]
    lower = [name.lower() for name in names if name]
    if twice := next((name for name in lower if lower.count(name) > 1), None):
        raise DataError(
            f"{lower.count(twice)} columns have the name '{twice}'",
            where=f"line {table.header_line}",
            allowed="columns with different names",
            fix=f"rename {lower.count(twice) - 1} of them in line {table.header_line}",
        )
    return names


class _AllBad(BadRecords):
    """Bad rows with their lines, until they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[int, Any]] = []

    def add(self, where: str, problem: str, fix: str = "") -> None:
        self.pending.append((int(where.rpartition(":")[2]), [problem, fix]))


def _table_lines(table: Table, names: list[str]) -> Iterator[bytes]:
    """The rows of a table as lines of JSON; blank ones keep the number of each row."""
    bad, line = _AllBad(), 1

    def written(number: int, value: Any) -> bytes:
        nonlocal line
        blank, line = b"\n" * (number - line), number + 1
        return blank + json.dumps(value).encode() + b"\n"

    for number, cells in table.rows(bad):
        yield from (written(*problem) for problem in bad.pending)
        bad.pending.clear()
        texts = ("" if cell is None else str(cell) for cell in cells)
        yield written(number, dict(zip(names, texts, strict=True)))
    yield from (written(*problem) for problem in bad.pending)
