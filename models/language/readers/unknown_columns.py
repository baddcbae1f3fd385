"""The error for columns that no rule reads, and what they probably mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import IGNORE, listed
from gearshift.models.common.table import Meanings, columns_option
from gearshift.models.language.readers.forms import METADATA, NAMES, OPTIONAL, form_of
from gearshift.models.language.readers.rows import Row

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


def check_columns(
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
