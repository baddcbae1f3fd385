"""Columns of tables: what each one means, by its heading or by the setting data.columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from models.abr.config import POINTS
from models.base import DataError
from models.common.columns import IGNORE, columns_option

NAMES = {
    "patient_id": ("patient_id", "patient", "id"),
    "age": ("age",),
    "intensity": ("intensity", "level", "level_db"),
    "rate": ("rate", "stimulus_rate"),
    "fmp": ("fmp",),
    "hear_loss": ("hear_loss", "hearing_loss", "hear_loss_type"),
    # "Latancy": the spelling of common exports of this table.
    "v_latency": ("v_latency", "v_latancy"),
    "v_amplitude": ("v_amplitude",),
    "threshold": ("threshold",),
    "polarity": ("polarity", "stimulus_polarity"),
    "rejected": ("rejected", "rejected_sweeps", "sweeps_rejected"),
}
"""Headings by meaning, first the preferred one; a heading matches as `_fold` gives it."""
REQUIRED = ("patient_id", "intensity", "hear_loss")
LABELS = ("hear_loss", "v_latency", "v_amplitude", "threshold")
POINT_NAMES = tuple(str(point) for point in range(1, POINTS + 1))
UNITS = {"age": "years", "rate": "1/s", "v_latency": "ms", "v_amplitude": "µV"}
_OTHER_UNITS = {
    "age": ("months", "month", "weeks", "days"),
    "rate": ("1/min", "/min", "ms"),
    "v_latency": ("s", "sec", "seconds", "us", "µs", "samples", "points"),
    "v_amplitude": ("nv", "mv", "v", "volts"),
}
"""Units in a heading with which a column would be misread."""
_BRACKETS = re.compile(r"\s*[(\[{]([^)\]}]*)[)\]}]")
_MANY = 20


def name_of(heading: Any) -> str:
    """A heading or a patient as text; a spreadsheet may write 7 as 7.0, which is the same."""
    return str("" if heading is None else heading).strip().removesuffix(".0")


def find_columns(
    headings: Sequence[Any], declared: Mapping[str, str], path: Path, has_labels: bool = True
) -> dict[str, int]:
    """The index of each known column of the table at `path`, by its meaning.

    `declared`: the meaning of a column by its name in lower case; it comes before NAMES. Unless
    `has_labels`, columns of labels are neither required nor returned. Raises DataError if a needed
    column is missing, if two mean the same, or if a heading has another unit.
    """
    names = [name_of(heading) for heading in headings]
    meanings = [declared.get(name.lower()) for name in names]
    columns: dict[str, int] = {}
    read = {meaning: NAMES[meaning] for meaning in NAMES if has_labels or meaning not in LABELS}
    for meaning, known in (read | {point: () for point in POINT_NAMES}).items():
        places = [i for i, m in enumerate(meanings) if m == meaning]
        if not places:
            places = _named(meaning, known, names, meanings)
        if len(places) > 1:
            raise _ambiguous(path, meaning, [names[i] for i in places])
        if places:
            columns[meaning] = places[0]
    for meaning in _OTHER_UNITS:
        if meaning in columns:
            _check_unit(path, names[columns[meaning]], meaning)
    required = [meaning for meaning in REQUIRED if meaning in read]
    if any(name not in columns for name in (*required, *POINT_NAMES)):
        raise _missing(path, names, columns, required)
    return columns


def _named(
    meaning: str, known: Sequence[str], names: Sequence[str], meanings: Sequence[str | None]
) -> list[int]:
    """The places of the columns with the first of the `known` headings that the table has."""
    free = [i for i, declared in enumerate(meanings) if declared is None]
    if not known:
        return [i for i in free if _BRACKETS.sub("", names[i]) == meaning]
    by_heading = ([i for i in free if _fold(names[i]) == _fold(name)] for name in known)
    return next((places for places in by_heading if places), [])


def _fold(name: str) -> str:
    """`name` without a unit in brackets, without case, blanks, `_` and `-`."""
    return re.sub(r"[\s_-]+", "", _BRACKETS.sub("", name)).lower()


def _check_unit(path: Path, name: str, meaning: str) -> None:
    for unit in _BRACKETS.findall(name):
        if unit.strip().lower().replace("μ", "µ") in _OTHER_UNITS[meaning]:
            raise DataError(
                f"the column '{name}' is in {unit.strip()}; {meaning} is read in {UNITS[meaning]}",
                where=str(path),
                allowed=f"{meaning} in {UNITS[meaning]}",
                fix=f"convert the column, or leave it out:  {columns_option({name: IGNORE})}",
            )


def _ambiguous(path: Path, meaning: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"{len(names)} columns mean {meaning}: {', '.join(names)}",
        where=str(path),
        allowed="one column of each meaning",
        fix=columns_option({name: IGNORE for name in names[1:]})
        if len({name.lower() for name in names}) == len(names)
        else "rename or remove one of them",
    )


def _missing(
    path: Path, names: Sequence[str], columns: Mapping[str, int], required: Sequence[str]
) -> DataError:
    facts = [meaning for meaning in required if meaning not in columns]
    points = [point for point in POINT_NAMES if point not in columns]
    lacks = [*facts, *points]
    few = ", ".join(lacks[:3]) + (f" and {len(lacks) - 3} more" if len(lacks) > 3 else "")
    free = [n for i, n in enumerate(names) if n and i not in columns.values()]
    near = _nearest(facts, free)
    found = [name for name in names if name and name not in POINT_NAMES]
    listed = ", ".join(found[:_MANY]) or "none"
    listed += f" and {len(found) - _MANY} more" if len(found) > _MANY else ""
    optional = ", ".join(meaning for meaning in NAMES if meaning not in required)
    return DataError(
        f"the table has no column {few} among: {listed}",
        where=str(path),
        allowed=f"{', '.join(required)}, 1 … {POINTS}; and if known {optional}",
        did_you_mean=", ".join(f"{name} for {meaning}" for name, meaning in near.items()),
        fix=f"say what a column means:  {_assignment(facts, near)}"
        if facts
        else f"name the columns of the signal 1 … {POINTS}",
    )


def _nearest(facts: Sequence[str], free: Sequence[str]) -> dict[str, str]:
    """For each of `facts` the `free` column with the most similar name; missing: none is.

    A single column for a single fact needs no similar name.
    """
    if len(facts) == len(free) == 1:
        return {free[0]: facts[0]}
    folded = {_fold(name): name for name in free}
    near: dict[str, str] = {}
    for meaning in facts:
        words = [_fold(known) for known in NAMES[meaning]]
        close = [c for word in words for c in get_close_matches(word, folded, n=1)]
        inside = [c for c in folded if any(len(word) > 3 and word in c for word in words)]
        found = next((c for c in (*close, *inside) if folded[c] not in near), None)
        if found is not None:
            near[folded[found]] = meaning
    return near


def _assignment(facts: Sequence[str], near: Mapping[str, str]) -> str:
    """The option that says what a column means for each of `facts`."""
    known = {meaning: name for name, meaning in near.items()}
    open_facts = [meaning for meaning in facts if meaning not in known]
    placeholder = {
        f"NAME{n if len(open_facts) > 1 else ''}": m for n, m in enumerate(open_facts, 1)
    }
    return columns_option({**near, **placeholder})
