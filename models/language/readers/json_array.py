"""Rows of a JSON array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords
from models.common.text_file import TextFile
from models.language.readers.columns import RawRow
from models.language.readers.json_and_csv import checked_object, json_line_rows

_ROWS = re.compile(r'\s*(\[\s*)?\{\s*"')
_SPACE = re.compile(r"[ \t\n\r]*")
_MARGIN = 16
"""Characters before the end of a part, in which an error may come from the cut: `-Infinit`."""


def has_rows(file: TextFile) -> bool:
    """Whether a JSON file begins with an array of objects, or with an object in one line.

    Reads the first part of the file; False if it cannot be read.
    """
    try:
        head = next(file.chunks()).lstrip()
    except DataError:
        return False
    found = _ROWS.match(head)
    first, line_end, _ = head.partition("\n")
    is_line = first.rstrip().endswith("}") or not line_end  # a line longer than the part
    return found is not None and (found[1] is not None or is_line)


def json_rows(file: TextFile, name: str, bad_records: BadRecords) -> Iterator[RawRow]:
    """The rows of an array, or the object of each line of JSON.

    Holds one row in memory. Raises DataError for text that is not JSON.
    """
    text = _JsonText(file, name)
    first = text.skip_space()
    if first == "[":
        yield from _array_rows(text, bad_records)
    elif first == "{" and not has_rows(file):
        raise DataError(
            f"'{name}' is one object, not an array of rows",
            where=text.where,
            allowed="an array of objects, or one object per line",
        )
    else:
        yield from json_line_rows(file, name, bad_records)


def _array_rows(text: _JsonText, bad_records: BadRecords) -> Iterator[RawRow]:
    text.at += 1
    number = 0
    separator = "]" if text.skip_space() == "]" else ","
    text.at += separator == "]"
    while separator == ",":
        number += 1
        value, raw = text.value()
        row = checked_object(value, raw, text.where, bad_records)
        if row is not None:
            yield RawRow(text.line, number, row)
        separator = text.skip_space()
        if separator not in (",", "]"):
            raise text.error("Expecting ',' or ']'", text.at)
        text.at += 1
    if text.skip_space():
        raise text.error("text after the array", text.at)


class _JsonText:
    """The text of a file, of which one value and the rest of a part are in memory."""

    def __init__(self, file: TextFile, name: str) -> None:
        self.at, self.line = 0, 1
        """Position in the text in memory; line of the last visible character."""
        self._name, self._chunks, self._text = name, file.chunks(), ""
        self._counted = 0
        """Position up to which lines are counted."""
        self._column = 0
        """Characters of the line before the text in memory."""
        self._decode = json.JSONDecoder().raw_decode

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self._name}:{self.line}"

    def skip_space(self) -> str:
        """Go to the next visible character and give it; empty at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self._text) or not self._load():
                self._count_lines(self.at)
                return self._text[self.at : self.at + 1]

    def value(self) -> tuple[Any, str]:
        """The next value and its text. Raises DataError."""
        self.skip_space()
        while True:
            try:
                value, end = self._decode(self._text, self.at)
            except json.JSONDecodeError as error:
                near_end = error.pos > len(self._text) - _MARGIN
                is_cut = near_end or error.msg.startswith("Unterminated string")
                if not (is_cut and self._load()):
                    raise self.error(error.msg.removesuffix(" at"), error.pos) from None
            except (ValueError, RecursionError) as error:  # a long number; deep nesting
                raise self.error(str(error), self.at) from None
            else:
                raw, self.at = self._text[self.at : end], end
                return value, raw

    def error(self, problem: str, at: int) -> DataError:
        """The error of the character at position `at` of the text in memory."""
        self._count_lines(at)
        line_end = self._text.rfind("\n", 0, at)
        column = at - line_end if line_end >= 0 else self._column + at + 1
        return DataError(
            f"'{self._name}' is not JSON: {problem} at column {column}",
            where=self.where,
            allowed="an array of objects, or one object per line",
        )

    def _count_lines(self, at: int) -> None:
        self.line += self._text.count("\n", self._counted, at)
        self._counted = at

    def _load(self) -> bool:
        """Drop the text before the position, and read at least as much as remains."""
        self._count_lines(self.at)
        line_end = self._text.rfind("\n", 0, self.at)
        self._column = self.at - line_end - 1 if line_end >= 0 else self._column + self.at
        parts = [self._text[self.at :]]
        missing = max(1, len(parts[0]))
        self.at = self._counted = 0
        while missing > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            missing -= len(chunk)
        self._text = "".join(parts)
        return len(parts) > 1
