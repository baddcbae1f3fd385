"""Columns and messages: what each one means, and the text or the turns of a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import IGNORE, BadRecords
from gearshift.models.common.table import columns_option
from gearshift.models.language.readers.records import Turn
from gearshift.models.language.readers.rows import Row

ROLES = ("system", "user", "assistant")
_ALIASES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
"""Roles of ShareGPT, and those of APIs that mean the same."""
_UNREAD = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")
"""Fields that hold text of a message beside its content."""
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
SAMPLE = ("request", "answer")
"""What a sample has that is neither messages nor a text."""
Columns = dict[str, str]
"""The name of the column of each meaning that a row has."""
Fields = Mapping[str, Any]
Turns = tuple[Turn, ...]


def is_sample(columns: Columns, needed: Collection[str] = SAMPLE) -> bool:
    """Whether a row with these columns is a sample."""
    return "messages" in columns or "text" in columns or columns.keys() >= set(needed)


def columns_in(names: Sequence[str], declared: Mapping[str, str]) -> tuple[Columns, list[str]]:
    """The columns among `names`, and those that no rule reads.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES.
    """
    columns: Columns = {}
    others: Columns = {}
    keys = {name.strip().lower(): name for name in names}
    for key, meaning in declared.items():
        if key in keys and meaning != IGNORE:
            columns[meaning] = keys[key]
    for key, name in keys.items():
        if key not in declared:
            others[key] = name
    for meaning, known in NAMES.items():
        # A text beside a request and an answer is no sample.
        if meaning in columns or (meaning == "text" and is_sample(columns)):
            continue
        for key in known:
            if key in others:
                columns[meaning] = others.pop(key)
                break
    return columns, [name for key, name in others.items() if key not in METADATA]


class RowReader:
    """Reads the rows of one file; remembers the columns of each kind of row."""

    def __init__(
        self,
        file: str,
        declared: Mapping[str, str],
        bad_records: BadRecords,
        needed: Collection[str] = SAMPLE,
    ) -> None:
        """`needed` without "answer": answers are left out."""
        self._file = file
        self._declared = declared
        self._bad_records = bad_records
        self._needed = needed
        self._columns: dict[tuple[str, ...], Columns] = {}

    def content(self, row: Row) -> str | Turns | None:
        """The text or the turns of a row; None, and a bad record, if it is invalid.

        Raises DataError if a column is not read, or if those of a table make no sample.
        """
        names = tuple(row.fields)
        if names not in self._columns:
            self._columns[names] = self._columns_of(names, row)
        columns = self._columns[names]
        try:
            if "text" in columns:
                return _text(row.fields, columns["text"])
            return self._turns(row.fields, columns)
        except ValueError as error:
            self._bad_records.add(f"{self._file}:{row.line}", str(error))
            return None

    def _turns(self, fields: Fields, columns: Columns) -> Turns:
        """The turns of messages, or of a request and an answer. Raises ValueError."""
        turns: list[Turn] = []
        system = _optional(fields, columns.get("system"))
        if system:
            turns.append(Turn("system", system))
        if "messages" in columns:
            column = columns["messages"]
            return (*turns, *turns_of(fields[column], column))
        if not is_sample(columns, self._needed):
            needed = " and ".join(self._needed)
            raise ValueError(f"no column for {needed}; data.columns names others")

        for turn in _side(fields, columns["request"], "user"):
            turns.append(replace(turn, learned=False))
        context = _optional(fields, columns.get("context"))
        last = turns[-1]
        if context and last.role == "user":
            turns[-1] = replace(last, text=f"{last.text}\n\n{context}")
        if "answer" in self._needed:
            turns += _side(fields, columns["answer"], "assistant")
        return tuple(turns)

    def _columns_of(self, names: Sequence[str], row: Row) -> Columns:
        """Raises DataError for columns that are not read, or that make no sample in a table."""
        columns, unread = columns_in(names, self._declared)
        if is_sample(columns, self._needed):
            if not unread:
                return columns
            problem = f"columns that are not read: {', '.join(unread)}"
            meanings = dict.fromkeys(unread, IGNORE)
        else:
            if not row.header:
                return columns  # each row of JSON has keys of its own
            meaning = next(meaning for meaning in self._needed if meaning not in columns)
            problem = f"no column for the {meaning} among: {', '.join(names)}"
            meanings = {unread[0] if unread else "NAME": meaning}
        known = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())
        raise DataError(
            problem,
            where=f"{self._file}:{row.header or row.line}",
            allowed=f"{known}; ignored: {', '.join(METADATA)}",
            fix=columns_option(meanings),
            hint="or rename a column",
        )


def turns_of(messages: Any, field: str) -> Turns:
    """The turns of a list of messages in `field`. Raises ValueError, which names the field."""
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{field} is no list of {{role, content}} or {{from, value}}")
    return tuple(_turn(message, f"{field}[{n}]") for n, message in enumerate(messages))


def _turn(message: Any, at: str) -> Turn:
    if not isinstance(message, dict):
        raise ValueError(f"{at} is {type(message).__name__}, not an object")
    role_key = "role"
    content_key = "content"
    if "role" not in message and "from" in message:  # ShareGPT
        role_key = "from"
        content_key = "value"
    role = str(message.get(role_key))
    role = _ALIASES.get(role, role)
    if role not in ROLES:
        raise ValueError(f"{at}.{role_key} is {role!r}; allowed: {', '.join(ROLES)}")
    for key in _UNREAD:
        if message.get(key):
            raise ValueError(f"{at}.{key} is not read: put it into {content_key}, or remove it")
    text = message.get(content_key)
    if isinstance(text, list):
        text = _joined(text)
    if not isinstance(text, str) or (role == "assistant" and not text.strip()):
        raise ValueError(f"{at}.{content_key} is no text")
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise ValueError(f"{at}.weight is {weight!r}; 0 (not learned) and 1 are read")
    return Turn(role, text, learned=weight != 0)


def _joined(parts: Sequence[Any]) -> str | None:
    """The text of a content in parts; None if a part is no text, such as an image."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            return None
        text = part.get("text")
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)


def _side(fields: Fields, column: str, role: str) -> Turns:
    """The turns of a request or an answer: a text, or a list of messages as in TRL."""
    if isinstance(fields[column], list):
        return turns_of(fields[column], column)
    return (Turn(role, _text(fields, column)),)


def _optional(fields: Fields, column: str | None) -> str:
    value = fields[column] if column else None
    return value if isinstance(value, str) and value.strip() else ""


def _text(fields: Fields, column: str) -> str:
    value = fields[column]
    if not isinstance(value, str):
        raise ValueError(f"{column} is no text")
    if not value.strip():
        raise ValueError(f"{column} is empty")
    return value
