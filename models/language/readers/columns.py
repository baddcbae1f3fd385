"""Columns of tables and JSON objects: what each one means, and the record of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from models.base import DataError
from models.common.columns import IGNORE, columns_option
from models.common.data_files import BadRecords
from models.language.readers.records import Conversation, Document, Record, Turn
from models.language.readers.text_file import split_text

NAMES = {
    "request": ("instruction", "prompt", "question", "query", "user", "input"),
    "context": ("context", "input"),
    "answer": ("output", "response", "completion", "answer", "assistant"),
    "system": ("system", "system_prompt"),
    "messages": ("messages", "conversations"),
    "text": ("text",),
}
"""The names of columns by their meaning; `input` is the request if no other column is."""
METADATA = ("id", "category", "source", "url", "timestamp", "meta", "metadata")
"""Names of columns that hold no text of a sample; they are ignored."""
_KNOWN = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())
_ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
    "function_call": "assistant",
}
"""Roles of ShareGPT's conversations."""


@dataclass(frozen=True)
class Columns:
    """The columns of a row by meaning, with the names that the row has."""

    request: str | None = None
    context: str | None = None
    answer: str | None = None
    system: str | None = None
    messages: str | None = None
    text: str | None = None

    @property
    def are_complete(self) -> bool:
        """Whether a row with them is a sample."""
        return bool(self.messages or self.text or (self.request and self.answer))


def columns_in(names: Sequence[str], declared: Mapping[str, str]) -> tuple[Columns, list[str]]:
    """The columns among `names`, and those that no rule reads.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES.
    """
    meanings = {name: declared.get(name.strip().lower()) for name in names}
    found = Columns(**{m: n for n, m in meanings.items() if m not in (None, IGNORE)})
    open_names = {n.strip().lower(): n for n, m in meanings.items() if m is None}
    for meaning in NAMES:
        if getattr(found, meaning) is None and not (meaning == "text" and found.are_complete):
            name = next((n for n in NAMES[meaning] if n in open_names), None)
            if name is not None:
                found = replace(found, **{meaning: open_names.pop(name)})
    return found, [name for key, name in open_names.items() if key not in METADATA]


class RowReader:
    """Makes records of the rows of one file; remembers the columns of each kind of row."""

    def __init__(self, file: str, declared: Mapping[str, str], bad_records: BadRecords):
        self._file, self._declared, self._bad_records = file, declared, bad_records
        self._columns: dict[tuple[str, ...], Columns] = {}

    def columns(self, names: Sequence[str], line: int) -> Columns:
        """The columns of a row with `names`.

        Raises DataError if one of them is not read, or if they make no sample.
        """
        key = tuple(names)
        if key not in self._columns:
            columns, unread = columns_in(names, self._declared)
            where = f"{self._file}:{line}"
            if not columns.are_complete:
                raise _incomplete(where, names, columns)
            if unread:
                raise _unread(where, names, unread)
            self._columns[key] = columns
        return self._columns[key]

    def records(
        self, row: Mapping[str, Any], line: int, number: int | None = None
    ) -> Iterator[Record]:
        """The record of a row, a long text in parts; none, and a bad record, if it is invalid.

        `number` tells rows of one line apart. Raises DataError if one of its columns is not read.
        """
        where = f"{self._file}:{line}"
        try:
            columns = self.columns(tuple(row), line)
        except _Incomplete as error:
            self._bad_records.add(where, f"{error.message}; data.columns names others")
            return
        problem = None
        system = _optional(row, columns.system)
        if columns.messages:
            turns, problem = _turns(row[columns.messages])
        elif columns.text:
            text = row[columns.text]
            if not (problem := _problem("text", text)):
                group = f"{self._file}#{line if number is None else number:09}"
                yield from (Document(group, part) for part in split_text(text))
                return
        else:
            assert columns.request and columns.answer
            turns, problem = _exchange(row[columns.request], row[columns.answer])
            if context := _optional(row, columns.context):
                turns = (Turn("user", f"{row[columns.request]}\n\n{context}"), *turns[1:])
        if problem:
            self._bad_records.add(where, problem)
            return
        yield Conversation(((Turn("system", system), *turns) if system else turns), where)


def pair(
    request: object, answer: object, where: str, bad_records: BadRecords
) -> Conversation | None:
    """Conversation of one request and one answer; None and a reported row if either is invalid."""
    turns, problem = _exchange(request, answer)
    if problem:
        bad_records.add(where, problem)
        return None
    return Conversation(turns, where)


def _optional(row: Mapping[str, Any], column: str | None) -> str:
    value = row[column] if column else None
    return value if isinstance(value, str) and value.strip() else ""


def _exchange(request: object, answer: object) -> tuple[tuple[Turn, ...], str | None]:
    """The turns of a request and its answer, and what is wrong with them."""
    problem = _problem("request", request) or _problem("answer", answer)
    return (Turn("user", str(request)), Turn("assistant", str(answer))), problem


def _problem(name: str, value: object) -> str | None:
    """What is wrong with a text; None: nothing."""
    if not isinstance(value, str):
        return f"the {name} is {'null' if value is None else type(value).__name__}, not text"
    return None if value.strip() else f"the {name} is empty"


def _turns(messages: Any) -> tuple[tuple[Turn, ...], str | None]:
    """The turns of a list of {role, content} or {from, value}, and what is wrong with it."""
    if not isinstance(messages, list) or not messages:
        return (), "messages is not a list of {role, content} or {from, value}"
    turns = []
    for number, message in enumerate(messages, start=1):
        fields = message if isinstance(message, dict) else {}
        role = fields.get("role", fields.get("from"))
        content = fields.get("content", fields.get("value"))
        role = _ALIASES.get(str(role), role)
        if role not in _ROLES:
            near = get_close_matches(str(role).lower(), _ROLES, n=1)
            hint = f"; did you mean {near[0]}" if near else f"; allowed: {', '.join(_ROLES)}"
            return (), f"message {number}: unknown role {role!r}{hint}"
        content, problem = _joined(content)
        if problem:
            return (), f"message {number}: {problem}"
        if not isinstance(content, str) or (role == "assistant" and not content.strip()):
            return (), f"message {number}: content is empty or not text"
        turns.append(Turn(role, content))
    return tuple(turns), None


def _joined(content: Any) -> tuple[Any, str | None]:
    """The texts of a list of parts, by line; and what is wrong with it. Other content as it is."""
    if not isinstance(content, list):
        return content, None
    texts = []
    for number, part in enumerate(content, start=1):
        fields = part if isinstance(part, dict) else {}
        kind, text = fields.get("type", type(part).__name__), fields.get("text")
        if kind != "text" or not isinstance(text, str):
            return None, f"part {number} of its content is {kind}, and only text is read"
        texts.append(text)
    return "\n".join(texts), None


class _Incomplete(DataError):
    """A row without what a sample needs; of many rows, others may have it."""


def _incomplete(where: str, names: Sequence[str], columns: Columns) -> DataError:
    lacks = "no column for request and answer"
    if columns.request or columns.answer:
        lacks = f"no column for the {'answer' if columns.request else 'request'}"
    name = next((n for n in names if n not in vars(columns).values()), "NAME")
    meaning = "answer" if columns.request else "request"
    return _Incomplete(
        f"{lacks} among: {', '.join(names) or 'none'}",
        where=where,
        allowed=_KNOWN,
        fix=f"rename a column, or say what one means:  {columns_option({name: meaning})}",
    )


def _unread(where: str, names: Sequence[str], unread: Sequence[str]) -> DataError:
    known = sorted({name for of_meaning in NAMES.values() for name in of_meaning} - {*names})
    near = get_close_matches(unread[0].lower(), known, n=1, cutoff=0.75)
    columns = "columns are" if unread[1:] else "column is"
    return DataError(
        f"{len(unread)} {columns} not read: {', '.join(unread)}",
        where=where,
        allowed=f"{_KNOWN}; ignored: {', '.join(METADATA)}",
        did_you_mean=near[0] if near else "",
        fix=columns_option(dict.fromkeys(unread, IGNORE)),
    )
