"""The text or the turns of each row of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from math import isfinite
from typing import Any

from gearshift.models.base import DataError, Facts
from gearshift.models.common.data_reports import IGNORE, BadRecords, listed
from gearshift.models.common.table import Meanings, columns_option
from gearshift.models.common.text_file import TextFile, parse_json
from gearshift.models.language.readers.forms import METADATA, NAMES, OPTIONAL, Form, form_of
from gearshift.models.language.readers.records import Turn
from gearshift.models.language.readers.rows import Row, rows_of

ROLES = ("system", "user", "assistant", "tool")
_ALIASES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "developer": "system",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "observation": "tool",
}
"""Roles of ShareGPT, and those of APIs and other tools that mean the same."""
_UNREAD = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")
"""Facts that hold text of a message beside its content."""
LEFT_OUT = "left out"
HEAD = 300
"""Rows whose columns an error lists: objects of JSON have keys of their own."""
Turns = tuple[Turn, ...]
_MANY = 40
_HINT = "say what each column means:  --set 'data.columns=[NAME=request, OTHER=answer]'"
_LIKE = {
    "request": "request|instruction|prompt|question|query|input|ask|user|human|problem",
    "context": "context|passage|background|document|evidence",
    "answer": "answer|response|completion|output|reply|assistant|bot|gpt|solution|chosen",
    "messages": "message|conversation|dialog|dialogue|chat|turn|item",
    "system": "system",
    "text": "text|content|body|article|sentence|story|code",
}
"""Words in names of columns that tell a meaning."""
_TYPES: dict[str, Any] = {"messages": list, "answer": (str, int, float, list)}
"""Of the values of a column, beside text."""


def contents(
    file: TextFile,
    declared: Meanings,
    bad_records: BadRecords,
    meanings: dict[str, str],
    optional: Collection[str] = OPTIONAL,
) -> Iterator[tuple[int, str | Turns]]:
    """The line, and the text or the turns of each row of a file; invalid rows are bad records.

    `declared`, `optional`: see form_of. With an `optional`
    "answer", answers are not read. Adds to `meanings` those of the columns, or LEFT_OUT. Raises
    DataError if no rule reads a column, or if the first rows are no samples.
    """
    forms: dict[tuple[str, ...], Form] = {}
    for row in rows_of(file, bad_records):
        names = tuple(row.fields)
        if names not in forms:
            form = forms[names] = form_of(names, declared, optional)
            if form.unknown or not form.is_sample:
                head = [row, *islice(rows_of(file, BadRecords()), HEAD)]
                _check_columns(file.name, head, declared, optional)
            else:
                read = {column: meaning for meaning, column in form.columns.items()}
                meanings |= dict.fromkeys(names, LEFT_OUT) | read
        try:
            content = _content(row.fields, forms[names], optional)
        except ValueError as error:
            bad_records.add(f"{file.name}:{row.line}", str(error))
        else:
            yield row.line, content


def _content(fields: Facts, form: Form, optional: Collection[str]) -> str | Turns:
    """The text, or the turns of messages or of a request and an answer. Raises ValueError."""
    columns = form.columns
    if not form.is_sample:
        raise ValueError(f"no form of data is complete in: {', '.join(fields)}")
    if "text" in columns:
        return _text(fields, columns["text"])
    turns: list[Turn] = []
    system = _optional(fields, columns.get("system"))
    if system:
        turns.append(Turn("system", system))
    if "messages" in columns:
        column = columns["messages"]
        return (*turns, *turns_of(fields[column], column))

    for turn in _side(fields, columns["request"], "user"):
        turns.append(replace(turn, learned=False))
    context = _optional(fields, columns.get("context"))
    if context and turns[-1].role == "user":
        turns[-1] = replace(turns[-1], text=f"{turns[-1].text}\n\n{context}")
    if "answer" not in optional:
        turns += _side(fields, columns["answer"], "assistant")
    return tuple(turns)


def turns_of(messages: Any, field: str) -> Turns:
    """The turns of a list of messages in `field`. Raises ValueError, which names the field."""
    if isinstance(messages, str):  # in a cell of a table
        with suppress(ValueError):
            messages = parse_json(messages)
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{field} is no list of {{role, content}} or {{from, value}}")
    return tuple(_turn(message, f"{field}[{n}]") for n, message in enumerate(messages))


def _turn(message: Any, at: str) -> Turn:
    if not isinstance(message, dict):
        raise ValueError(f"{at} is {type(message).__name__}, not an object")
    is_shared = "role" not in message and "from" in message
    role_key, content_key = ("from", "value") if is_shared else ("role", "content")
    role = str(message.get(role_key)).lower()
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
    try:
        is_text = all(part["type"] == "text" for part in parts)
        return "\n".join(part["text"] for part in parts) if is_text else None
    except (KeyError, TypeError):
        return None


def _side(fields: Facts, column: str, role: str) -> Turns:
    """The turns of a request or an answer: a text, or a list of messages as in TRL."""
    if isinstance(fields[column], list):
        return turns_of(fields[column], column)
    return (Turn(role, _text(fields, column)),)


def _optional(fields: Facts, column: str | None) -> str:
    value = fields[column] if column else None
    return value if isinstance(value, str) and value.strip() else ""


def _text(fields: Facts, column: str) -> str:
    value = fields[column]
    if isinstance(value, (int, float)) and isfinite(value):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"{column} is no text")
    if not value.strip():
        raise ValueError(f"{column} is empty")
    return value


def _check_columns(
    file: str,
    head: Sequence[Row],
    declared: Meanings,
    optional: Collection[str],
) -> None:
    """Raise DataError for the columns of the first row of `head`, with one fix for all rows.

    Unless that row is no sample and another one is: then it is invalid, not the file.
    """
    columns: dict[str, Any] = {}
    for row in reversed(head):
        columns |= row.fields
    first, *others = (form_of(row.fields, declared, optional).is_sample for row in head)
    if not first and any(others):
        return
    form = form_of(columns, declared, optional)
    meanings = dict(declared) | dict.fromkeys(form.unknown, IGNORE)
    for meaning in OPTIONAL if first else _LIKE:
        names = [name for name in form.unknown if _is_like(meaning, name, columns[name])]
        name = min(names, key=len, default="")  # the answer before the answer_in_short
        if meaning not in form.columns and meanings.get(name) == IGNORE:
            meanings[name] = meaning

    keys = {name.strip().lower(): meaning for name, meaning in meanings.items()}
    is_sample = bool(form.unknown) and form_of(columns, keys, optional).is_sample
    known = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())
    raise DataError(
        f"rows with the columns {listed(tuple(columns), _MANY)} cannot be read; "
        f"not known: {listed(form.unknown, _MANY) or 'none'}",
        where=f"{file}:{head[0].header or head[0].line}",
        allowed=f"{known}; left out: {', '.join(METADATA)}",
        fix=columns_option(meanings) if is_sample else "",
        hint="" if is_sample else _HINT,
    )


def _is_like(meaning: str, name: str, value: Any) -> bool:
    """Whether a column with this name and value probably has the meaning."""
    begin = "(?<![a-zA-Z])|(?=[A-Z])"
    end = "s?(?![a-z])(?!.*(id|type|score|rating|length|model)$)"  # such as question_id
    is_named = re.search(f"({begin})(?i:{_LIKE[meaning]}){end}", name)
    return bool(is_named) and isinstance(value, _TYPES.get(meaning, str))
