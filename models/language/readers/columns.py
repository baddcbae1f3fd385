"""Columns and messages: what each one means, and the record of a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


def turns_of(messages: Any, field: str) -> tuple[Turn, ...]:
    """The turns of a list of messages in `field`. Raises ValueError, which names the field."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{field} is no list of {{role, content}} or {{from, value}}")
    return tuple(_turn(message, f"{field}[{n}]") for n, message in enumerate(messages))


def _turn(message: Any, at: str) -> Turn:
    if not isinstance(message, dict):
        raise ValueError(f"{at} is {type(message).__name__}, not an object")
    is_sharegpt = "role" not in message and "from" in message
    role_key, content_key = ("from", "value") if is_sharegpt else ("role", "content")
    role = str(message.get(role_key))
    role = _ALIASES.get(role, role)
    if role not in ROLES:
        raise ValueError(f"{at}.{role_key} is {role!r}; allowed: {', '.join(ROLES)}")
    if unread := next((key for key in _UNREAD if message.get(key)), None):
        raise ValueError(f"{at}.{unread} is not read: put it into {content_key}, or remove it")
    text, weight = message.get(content_key), message.get("weight")
    if isinstance(text, list) and all(isinstance(x, dict) and x.get("type") == "text" for x in text):
        parts = [part.get("text") for part in text]
        text = "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(text, str) or (role == "assistant" and not text.strip()):
        raise ValueError(f"{at}.{content_key} is no text")
    if weight not in (None, 0, 1):
        raise ValueError(f"{at}.weight is {weight!r}; 0 (not learned) and 1 are read")
    return Turn(role, text, learned=weight != 0)


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


Columns = dict[str, str]
"""The name of the column of each meaning that a row has."""


def is_sample(columns: Mapping[str, str]) -> bool:
    """Whether a row with these columns is a sample."""
    return "messages" in columns or "text" in columns or {"request", "answer"} <= columns.keys()


def columns_in(names: Sequence[str], declared: Mapping[str, str]) -> tuple[Columns, list[str]]:
    """The columns among `names`, and those that no rule reads.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES.
    """
    columns, others = Columns(), dict[str, str]()
    for name in names:
        key = name.strip().lower()
        if (meaning := declared.get(key)) is None:
            others[key] = name
        elif meaning != IGNORE:
            columns[meaning] = name
    for meaning, known in NAMES.items():
        if meaning not in columns and not (meaning == "text" and is_sample(columns)):
            found = next((key for key in known if key in others), None)
            if found is not None:
                columns[meaning] = others.pop(found)
    return columns, [name for key, name in others.items() if key not in METADATA]


class RowReader:
    """Makes records of the rows of one file; remembers the columns of each kind of row."""

    def __init__(self, file: str, declared: Mapping[str, str], bad_records: BadRecords):
        self.file, self._declared, self.bad_records = file, declared, bad_records
        self._columns: dict[tuple[str, ...], Columns] = {}

    def records(self, raw: RawRow) -> Iterator[Record]:
        """The record of a row, a long text in parts; none, and a bad record, if it is invalid.

        Raises DataError if a column is not read, or if those of a table make no sample.
        """
        row, where, names = raw.fields, f"{self.file}:{raw.line}", tuple(raw.fields)
        if names not in self._columns:
            columns, unread = columns_in(names, self._declared)
            if unread if is_sample(columns) else raw.header:
                raise _unknown(f"{self.file}:{raw.header or raw.line}", names, columns, unread)
            self._columns[names] = columns
        columns = self._columns[names]
        try:
            if "text" in columns:
                text, group = _text(row, columns["text"]), f"{self.file}#{raw.number:09}"
                yield from (Document(group, part) for part in split_text(text.split("\n")))
            else:
                yield Conversation(_turns(row, columns), where)
        except ValueError as error:
            self.bad_records.add(where, str(error))


def _turns(row: Mapping[str, Any], columns: Columns) -> tuple[Turn, ...]:
    """The turns of a row of messages, or of a request and an answer. Raises ValueError."""
    system = _optional(row, columns.get("system"))
    first = (Turn("system", system),) if system else ()
    if "messages" in columns:
        return (*first, *turns_of(row[columns["messages"]], columns["messages"]))
    if not is_sample(columns):
        raise ValueError("no column for request and answer; data.columns names others")
    before = _side(row, columns["request"], "user")
    context = _optional(row, columns.get("context"))
    if context and before[-1].role == "user":
        before = (*before[:-1], replace(before[-1], text=f"{before[-1].text}\n\n{context}"))
    not_learned = (replace(turn, learned=False) for turn in before)
    return (*first, *not_learned, *_side(row, columns["answer"], "assistant"))


def _side(row: Mapping[str, Any], column: str, role: str) -> tuple[Turn, ...]:
    """The turns of a request or an answer: a text, or a list of messages as in TRL."""
    if isinstance(row[column], list):
        return turns_of(row[column], column)
    return (Turn(role, _text(row, column)),)


def _optional(row: Mapping[str, Any], column: str | None) -> str:
    value = row[column] if column else None
    return value if isinstance(value, str) and value.strip() else ""


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column} is {'empty' if isinstance(value, str) else 'no text'}")
    return value


def _unknown(where: str, names: Sequence[str], columns: Columns, unread: Sequence[str]) -> DataError:
    """The error for columns that are not read, or that make no sample."""
    meanings = dict.fromkeys(unread, IGNORE)
    if is_sample(columns):
        problem = f"columns that are not read: {', '.join(unread)}"
    else:
        meaning = "answer" if "request" in columns else "request"
        problem = f"no column for the {meaning} among: {', '.join(names)}"
        meanings = {next(iter(unread), "NAME"): meaning}
    return DataError(
        problem,
        where=where,
        allowed=f"{_KNOWN}; ignored: {', '.join(METADATA)}",
        fix=f"rename a column, or say what one means:  {columns_option(meanings)}",
    )
