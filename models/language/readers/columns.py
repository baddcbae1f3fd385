"""Columns and messages: what each one means, and the record of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from models.base import DataError
from models.common.data_files import IGNORE, BadRecords
from models.common.table import columns_option
from models.language.readers.plain_text import split_text
from models.language.readers.records import Conversation, Document, Record, Turn

ROLES = ("system", "user", "assistant")
_ALIASES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
"""Roles of ShareGPT, and those of APIs that mean the same."""
_UNREAD = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")
"""Fields that hold text of a message beside its content."""


class MessageError(ValueError):
    """A message that cannot be read: its field, and what is wrong with it."""


def turns_of(messages: Any, field: str) -> tuple[Turn, ...]:
    """The turns of a list of messages in `field`. Raises MessageError, which names the field."""
    if not isinstance(messages, list) or not messages:
        kind = "an empty list" if messages == [] else kind_of(messages)
        raise MessageError(f"{field} is {kind}, not a list of {{role, content}} or {{from, value}}")
    return tuple(_turn(message, f"{field}[{n}]") for n, message in enumerate(messages))


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    return {type(None): "null", str: "text", dict: "an object", list: "a list"}.get(
        type(value), type(value).__name__
    )


def _turn(message: Any, at: str) -> Turn:
    if not isinstance(message, dict):
        raise MessageError(f"{at} is {kind_of(message)}, not an object")
    is_sharegpt = "role" not in message and "from" in message
    role_key, content_key = ("from", "value") if is_sharegpt else ("role", "content")
    role = _role(message.get(role_key), f"{at}.{role_key}")
    for key in _UNREAD:
        if message.get(key):
            raise MessageError(f"{at}.{key} is not read: put it into {content_key}, or remove it")
    text = _text(message.get(content_key), f"{at}.{content_key}")
    if role == "assistant" and not text.strip():
        raise MessageError(f"{at}.{content_key} is empty")
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise MessageError(f"{at}.weight is {weight!r}; 0 (not learned) and 1 are read")
    return Turn(role, text, learned=weight != 0)


def _role(value: Any, at: str) -> str:
    role = _ALIASES.get(str(value), value)
    if role in ROLES:
        return str(role)
    similar = get_close_matches(str(value).lower(), ROLES, n=1)
    hint = f"did you mean {similar[0]}" if similar else f"allowed: {', '.join(ROLES)}"
    raise MessageError(f"{at} is {'null' if value is None else repr(value)}; {hint}")


def _text(content: Any, at: str) -> str:
    """The text of a content: itself, or the texts of a list of parts, by line."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise MessageError(f"{at} is {kind_of(content)}, not text")
    texts = []
    for number, part in enumerate(content):
        fields = part if isinstance(part, dict) else {}
        kind, text = fields.get("type", kind_of(part)), fields.get("text")
        if kind != "text" or not isinstance(text, str):
            raise MessageError(f"{at}[{number}] is {kind}, and only text is read")
        texts.append(text)
    return "\n".join(texts)


NAMES = {
    "request": ("prompt", "instruction", "input"),
    "context": ("context", "input"),
    "answer": ("response", "completion", "output"),
    "system": ("system",),
    "messages": ("messages", "conversations"),
    "text": ("text",),
}
"""The names of columns by their meaning, those of Alpaca, TRL and ShareGPT; `input` is the request
if no other column is."""
METADATA = ("id", "category", "source", "url", "timestamp", "meta", "metadata")
"""Names of columns that hold no text of a sample; they are ignored."""
_KNOWN = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())


@dataclass(frozen=True)
class RawRow:
    """A row of a table or an object of JSON, as it is in the file."""

    line: int
    number: int
    """Tells rows of one line apart."""
    fields: Mapping[str, Any]
    header: int | None = None
    """The line of the names of the fields in a table; None: each row names its own."""


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
    columns = Columns(**{m: n for n, m in meanings.items() if m not in (None, IGNORE)})
    open_names = {n.strip().lower(): n for n, m in meanings.items() if m is None}
    for meaning in NAMES:
        if getattr(columns, meaning) is None and not (meaning == "text" and columns.are_complete):
            name = next((n for n in NAMES[meaning] if n in open_names), None)
            if name is not None:
                columns = replace(columns, **{meaning: open_names.pop(name)})
    return columns, [name for key, name in open_names.items() if key not in METADATA]


class RowReader:
    """Makes records of the rows of one file; remembers the columns of each kind of row."""

    def __init__(self, file: str, declared: Mapping[str, str], bad_records: BadRecords):
        self.file, self._declared, self.bad_records = file, declared, bad_records
        self._columns: dict[tuple[str, ...], Columns] = {}

    def columns(self, row: Mapping[str, Any], line: int) -> Columns:
        """The columns of a row.

        Raises DataError if one of them is not read, or if they make no sample.
        """
        names = key = tuple(row)
        if key not in self._columns:
            columns, unread = columns_in(names, self._declared)
            where = f"{self.file}:{line}"
            if not columns.are_complete:
                raise _incomplete(where, names, columns)
            if unread:
                raise _unread(where, names, unread)
            self._columns[key] = columns
        return self._columns[key]

    def records(self, raw: RawRow) -> Iterator[Record]:
        """The record of a row, a long text in parts; none, and a bad record, if it is invalid.

        Raises DataError if one of its columns is not read.
        """
        row, where = raw.fields, f"{self.file}:{raw.line}"
        try:
            columns = self.columns(row, raw.header or raw.line)
        except _Incomplete as error:
            if raw.header:
                raise
            self.bad_records.add(where, f"{error.message}; data.columns names others")
            return
        if columns.text:
            text = row[columns.text]
            if problem := _problem(columns.text, text):
                self.bad_records.add(where, problem)
                return
            group = f"{self.file}#{raw.number:09}"
            yield from (Document(group, part) for part in split_text(text))
            return
        try:
            turns = _row_turns(row, columns)
        except MessageError as error:
            fix = f"correct {str(error).partition(' is ')[0]} in {where}"
            self.bad_records.add(where, str(error), fix)
            return
        if system := _optional(row, columns.system):
            turns = (Turn("system", system), *turns)
        yield Conversation(turns, where)


def _row_turns(row: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    """The turns of a row of messages, or of a request and an answer. Raises MessageError."""
    if columns.messages:
        return turns_of(row[columns.messages], columns.messages)
    assert columns.request and columns.answer
    before = _side(row, columns.request, "user")
    context = _optional(row, columns.context)
    if context and before[-1].role == "user":
        before = (*before[:-1], replace(before[-1], text=f"{before[-1].text}\n\n{context}"))
    not_learned = (replace(turn, learned=False) for turn in before)
    return (*not_learned, *_side(row, columns.answer, "assistant"))


def _side(row: Mapping[str, Any], column: str, role: str) -> tuple[Turn, ...]:
    """The turns of a request or an answer: a text, or a list of messages as in TRL."""
    value = row[column]
    if isinstance(value, list):
        return turns_of(value, column)
    if problem := _problem(column, value):
        raise MessageError(problem)
    return (Turn(role, value),)


def _optional(row: Mapping[str, Any], column: str | None) -> str:
    value = row[column] if column else None
    return value if isinstance(value, str) and value.strip() else ""


def _problem(name: str, value: object) -> str | None:
    """What is wrong with a text; None: nothing."""
    if not isinstance(value, str):
        return f"{name} is {kind_of(value)}, not text"
    return None if value.strip() else f"{name} is empty"


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
    similar = get_close_matches(unread[0].lower(), known, n=1, cutoff=0.75)
    columns = "columns are" if unread[1:] else "column is"
    return DataError(
        f"{len(unread)} {columns} not read: {', '.join(unread)}",
        where=where,
        allowed=f"{_KNOWN}; ignored: {', '.join(METADATA)}",
        did_you_mean=similar[0] if similar else "",
        fix=columns_option(dict.fromkeys(unread, IGNORE)),
    )
