"""Columns and messages: what each one means, and the text or the turns of a row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_files import IGNORE, BadRecords
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


def is_sample(columns: Mapping[str, str], needed: Collection[str] = SAMPLE) -> bool:
    """Whether a row with these columns is a sample."""
    return "messages" in columns or "text" in columns or columns.keys() >= set(needed)


def columns_in(names: Sequence[str], declared: Mapping[str, str]) -> tuple[Columns, list[str]]:
    """The columns among `names`, and those that no rule reads.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES.
    """
    keys = {name.strip().lower(): name for name in names}
    columns = {m: keys[key] for key, m in declared.items() if key in keys and m != IGNORE}
    others = {key: name for key, name in keys.items() if key not in declared}
    for meaning, known in NAMES.items():
        if meaning not in columns and not (meaning == "text" and is_sample(columns)):
            key = next((key for key in known if key in others), None)
            if key is not None:
                columns[meaning] = others.pop(key)
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

    def content(self, row: Row) -> str | tuple[Turn, ...] | None:
        """The text or the turns of a row; None, and a bad record, if it is invalid.

        Raises DataError if a column is not read, or if those of a table make no sample.
        """
        names = tuple(row.fields)
        if names not in self._columns:
            columns, unread = columns_in(names, self._declared)
            if unread if is_sample(columns, self._needed) else row.header:
                raise self._unknown(
                    f"{self._file}:{row.header or row.line}", names, columns, unread
                )
            self._columns[names] = columns
        columns = self._columns[names]
        try:
            return (
                _text(row.fields, columns["text"])
                if "text" in columns
                else self._turns(row, columns)
            )
        except ValueError as error:
            self._bad_records.add(f"{self._file}:{row.line}", str(error))
            return None

    def _turns(self, row: Row, columns: Columns) -> tuple[Turn, ...]:
        """The turns of messages, or of a request and an answer. Raises ValueError."""
        fields = row.fields
        system, context = (
            _optional(fields, columns.get(meaning)) for meaning in ("system", "context")
        )
        first = (Turn("system", system),) if system else ()
        if "messages" in columns:
            return (*first, *turns_of(fields[columns["messages"]], columns["messages"]))
        if not is_sample(columns, self._needed):
            raise ValueError(
                f"no column for {' and '.join(self._needed)}; data.columns names others"
            )
        before = _side(fields, columns["request"], "user")
        if context and before[-1].role == "user":
            before = (*before[:-1], replace(before[-1], text=f"{before[-1].text}\n\n{context}"))
        answer = _side(fields, columns["answer"], "assistant") if "answer" in self._needed else ()
        return (*first, *(replace(turn, learned=False) for turn in before), *answer)

    def _unknown(
        self, where: str, names: Sequence[str], columns: Columns, unread: Sequence[str]
    ) -> DataError:
        """The error for columns that are not read, or that make no sample."""
        meanings = dict.fromkeys(unread, IGNORE)
        problem = f"columns that are not read: {', '.join(unread)}"
        if not is_sample(columns, self._needed):
            meaning = next(meaning for meaning in self._needed if meaning not in columns)
            meanings = {next(iter(unread), "NAME"): meaning}
            problem = f"no column for the {meaning} among: {', '.join(names)}"
        known = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())
        return DataError(
            problem,
            where=where,
            allowed=f"{known}; ignored: {', '.join(METADATA)}",
            fix=f"rename a column, or say what one means:  {columns_option(meanings)}",
        )


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
    text = message.get(content_key)
    weight = message.get("weight")
    if isinstance(text, list) and all(
        isinstance(x, dict) and x.get("type") == "text" for x in text
    ):
        parts = [part.get("text") for part in text]
        text = "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(text, str) or (role == "assistant" and not text.strip()):
        raise ValueError(f"{at}.{content_key} is no text")
    if weight not in (None, 0, 1):
        raise ValueError(f"{at}.weight is {weight!r}; 0 (not learned) and 1 are read")
    return Turn(role, text, learned=weight != 0)


def _side(fields: Mapping[str, Any], column: str, role: str) -> tuple[Turn, ...]:
    """The turns of a request or an answer: a text, or a list of messages as in TRL."""
    if isinstance(fields[column], list):
        return turns_of(fields[column], column)
    return (Turn(role, _text(fields, column)),)


def _optional(fields: Mapping[str, Any], column: str | None) -> str:
    value = fields[column] if column else None
    return value if isinstance(value, str) and value.strip() else ""


def _text(fields: Mapping[str, Any], column: str) -> str:
    value = fields[column]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column} is {'empty' if isinstance(value, str) else 'no text'}")
    return value
