"""The error for columns that no rule reads, and what they probably mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import IGNORE, listed
from gearshift.models.common.table import columns_option
from gearshift.models.language.readers.columns import METADATA, NAMES, OPTIONAL, form_of, turns_of
from gearshift.models.language.readers.rows import Row

_MANY = 40
_LIKE = {
    "messages": "",
    "request": "request instruction prompt question query input ask user human problem frage",
    "context": "context passage background document evidence",
    "answer": "answer response completion output reply assistant bot gpt solution chosen antwort",
    "system": "system",
    "text": "text content body article sentence story code",
}
"""Words in names of columns that tell a meaning; messages tell themselves."""
_NO_TEXT = re.compile(r"(id|type|score|rating|length|model)$", re.IGNORECASE)
"""The end of names of columns about others, such as question_id."""
_WORD = re.compile(r"[A-Z]*[^\W\d_A-Z]+|[A-Z]+")


def columns_error(
    file: str,
    head: Sequence[Row],
    declared: Mapping[str, str],
    optional: Collection[str],
) -> DataError | None:
    """The error for the columns of the first row of `head`, with one fix for those of all rows.

    None if that row is no sample and another one is: then it is invalid, not the file.
    """
    columns: dict[str, Any] = {}
    for row in reversed(head):
        columns |= row.fields
    forms = [form_of(tuple(row.fields), declared, optional) for row in head]
    has_sample = any(form.is_sample for form in forms)
    if has_sample and not forms[0].is_sample:
        return None

    form = form_of(tuple(columns), declared, optional)
    missing = [meaning for meaning in _LIKE if meaning not in form.columns]
    if has_sample:
        missing = sorted(OPTIONAL.intersection(missing))
    elif "request" in form.columns:
        missing.remove("messages")  # what is left are the messages of the answer
    meanings = dict(declared) | dict.fromkeys(form.unknown, IGNORE)
    for name in sorted(form.unknown, key=len):  # the plain name before answer_of_a_kind
        for meaning in missing:
            if _is_like(meaning, name, columns[name]):
                meanings[name] = meaning
                missing.remove(meaning)
                break

    message = f"columns that are not read: {listed(form.unknown, _MANY)}; all columns"
    if not has_sample:
        message = "no form of data fits the columns"
    fix = columns_option(meanings)
    hint = ""
    keys = {name.strip().lower(): meaning for name, meaning in meanings.items()}
    if not form_of(tuple(columns), keys, optional).is_sample:
        fix = ""
        hint = "say what each column means:  --set 'data.columns=[NAME=request, OTHER=answer]'"
    names = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())
    return DataError(
        f"{message}: {listed(tuple(columns), _MANY) or 'none'}",
        where=f"{file}:{head[0].header or head[0].line}",
        allowed=f"{names}; left out: {', '.join(METADATA)}",
        fix=fix,
        hint=hint,
    )


def _is_like(meaning: str, name: str, value: Any) -> bool:
    """Whether a column with this name and value probably has the meaning."""
    if meaning == "messages":
        with suppress(ValueError):
            return bool(turns_of(value, name))
        return False
    is_text = isinstance(value, str) or (meaning == "answer" and not isinstance(value, dict))
    words = {word.lower().removesuffix("s") for word in _WORD.findall(name)}
    return is_text and not _NO_TEXT.search(name) and not words.isdisjoint(_LIKE[meaning].split())
