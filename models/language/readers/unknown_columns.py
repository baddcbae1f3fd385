"""The error for columns that no rule reads, and what they probably mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import IGNORE
from gearshift.models.common.table import columns_option
from gearshift.models.language.readers.columns import FORMS, METADATA, NAMES, Form, form_of
from gearshift.models.language.readers.rows import Row

_HEAD = 1000
"""Rows whose columns the error lists: objects of JSON have keys of their own."""
_LIKE = {
    "messages": "message conversation dialog dialogue chat turn item chosen",
    "request": "request instruction prompt question query ask user human problem frage pregunta",
    "context": "context passage background document evidence",
    "answer": "answer response completion output reply assistant bot gpt solution target chosen "
    "antwort respuesta réponse",
    "system": "system",
    "text": "text content body article document sentence story code",
}
"""Words in names of columns that tell a meaning."""


def columns_error(
    file: str,
    row: Row,
    rows: Iterable[Row],
    declared: Mapping[str, str],
    optional: Collection[str],
) -> DataError | None:
    """The error for the columns of `row` and of the first `rows` of a file, with one fix for all.

    None if `row` is no sample and another one is: then that row is invalid, not the file.
    """
    first_values: dict[str, Any] = {}
    has_sample = False
    for other in chain([row], islice(rows, _HEAD)):
        values = other.values
        has_sample = has_sample or form_of(tuple(values), declared, optional).is_sample
        for name, value in values.items():
            first_values.setdefault(name, value)
    if has_sample and not form_of(tuple(row.values), declared, optional).is_sample:
        return None

    form = form_of(tuple(first_values), declared, optional)
    guesses = _guesses(form, first_values, optional)
    columns = ", ".join(first_values) or "none"
    message = f"the columns make no sample: {columns}"
    if has_sample:
        message = f"columns that are not read: {', '.join(form.unknown)}; all columns: {columns}"
    names = "; ".join(f"{meaning}: {', '.join(names)}" for meaning, names in NAMES.items())
    fix = ""
    hint = ""
    if has_sample or (form.unknown and guesses is not None):
        meanings = dict(declared) | dict.fromkeys(form.unknown, IGNORE)
        for meaning, name in (guesses or {}).items():
            meanings[name] = meaning
        fix = columns_option(meanings)
    else:
        form_of_fix = columns_option({"NAME": "request", "OTHER NAME": "answer"})
        hint = f"say what each column means, or {IGNORE}:  {form_of_fix}"
    return DataError(
        message,
        where=f"{file}:{row.header or row.line}",
        allowed=f"{names}; left out: {', '.join(METADATA)}",
        fix=fix,
        hint=hint,
    )


def _guesses(
    form: Form,
    values: Mapping[str, Any],
    optional: Collection[str],
) -> dict[str, str] | None:
    """The unknown column of each meaning that the most complete form lacks, as far as its name and
    its first value tell; None if they leave no form complete."""
    known = form.columns.keys()
    for meanings in sorted(FORMS, key=lambda meanings: -len(known & set(meanings))):
        guesses: dict[str, str] = {}
        for meaning in meanings:
            free = [name for name in form.unknown if name not in guesses.values()]
            fitting = [name for name in free if _fits(meaning, values[name])]
            name = _likeliest(meaning, fitting)
            if name and meaning not in known:
                guesses[meaning] = name
        if known | guesses.keys() >= set(meanings) - set(optional):
            return guesses
    return None


def _fits(meaning: str, value: Any) -> bool:
    """Whether a value may be that of a column with this meaning."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        is_message = bool(value[0].keys() & {"role", "from"})
        return is_message and meaning in ("messages", "request", "answer")
    if meaning == "answer" and isinstance(value, (int, float)):
        return True
    return meaning != "messages" and isinstance(value, str)


def _likeliest(meaning: str, names: Sequence[str]) -> str:
    """The name with the fewest words among those with a word for `meaning`; empty: none, or two."""
    like = set(_LIKE[meaning].split())
    words_of: dict[str, int] = {}
    for name in names:
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
        words = re.findall(r"[^\W\d_]+", spaced)
        if like.intersection(word.removesuffix("s") for word in words):
            words_of[name] = len(words)
    fewest = min(words_of.values(), default=0)
    shortest = [name for name, count in words_of.items() if count == fewest]
    return shortest[0] if len(shortest) == 1 else ""
