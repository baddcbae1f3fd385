"""The standard forms of instruction data: what the columns of a row mean by their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from gearshift.models.common.data_reports import IGNORE
from gearshift.models.common.table import Meanings

NAMES = {
    "request": ("instruction", "prompt", "question", "input"),
    "context": ("context", "input"),
    "answer": ("output", "completion", "response", "answer"),
    "system": ("system", "system_prompt"),
    "messages": ("messages", "conversations"),
    "text": ("text",),
}
"""The standard names of columns by their meaning, those of Alpaca, TRL, ShareGPT and GSM8K: of each
meaning the first that a row has. `input` is the request if no other column is."""
METADATA = (
    "id",
    "idx",
    "index",
    "prompt_id",
    "conversation_id",
    "category",
    "source",
    "dataset",
    "url",
    "timestamp",
    "meta",
    "metadata",
)
"""Names of columns that hold no text of a sample; they are left out."""
_STANDARD = frozenset(chain(METADATA, *NAMES.values()))
FORMS = (
    ("messages", "system"),
    ("request", "context", "answer", "system"),
    ("text",),
)
"""The meanings of each form of a sample. Of a row that has two forms the first one is read."""
OPTIONAL = frozenset({"context", "system"})
"""Meanings that a form may lack."""


class Form(NamedTuple):
    """What the columns of a row mean."""

    columns: Meanings
    """The column of each meaning: of the form that is read, or all if no form is complete."""
    unknown: Sequence[str]
    """Columns that no rule reads."""
    is_sample: bool
    """Whether a form is complete."""


def form_of(
    names: Iterable[str],
    declared: Meanings,
    optional: Collection[str] = OPTIONAL,
) -> Form:
    """The form of a row with the columns `names`.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES and before
    the order of FORMS. `optional`: the meanings that a form may lack.
    """
    names_of = {name.strip().lower(): name for name in names}
    columns = {declared[key]: name for key, name in names_of.items() if key in declared}
    others = {key: name for key, name in names_of.items() if key not in declared}
    chosen = columns.keys() - {IGNORE}
    for meaning, known in NAMES.items():
        for key in known:
            if key in others and meaning not in columns:
                columns[meaning] = others.pop(key)
    unknown = [name for key, name in others.items() if key not in _STANDARD]

    complete = [form for form in FORMS if columns.keys() >= set(form) - set(optional)]
    if complete:
        form = min(complete, key=lambda form: len(chosen.difference(form)))
        columns = {meaning: columns[meaning] for meaning in form if meaning in columns}
    return Form(columns, unknown, bool(complete))
