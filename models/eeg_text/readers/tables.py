"""Pairs of texts, of a JSON object or a table."""

from __future__ import annotations

from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_files import existing_path
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.table import Table, is_table, text_of
from gearshift.models.common.text_file import TextFile, parse_json


def pairs(name: str, key: str) -> dict[str, str]:
    """A JSON object of texts, or the two columns of a table, under a header.

    `name` is the value of the setting `key`. Reads the disk; raises DataError, also where a name
    has two texts.
    """
    allowed = 'a JSON object {"name": "..."} or a CSV of two columns, each name once'
    path = existing_path(name, allowed, key)
    bad_records = BadRecords()
    rows: Any
    try:
        if is_table(path):
            table = Table(TextFile(path))
            rows = tuple(tuple(map(text_of, row)) for _, row in table.rows(bad_records))
            bad_records.finish("stop", len(rows))
        else:
            # An object as pairs, so that a name that stands twice is seen.
            rows = parse_json("".join(TextFile(path).chunks()), tuple)
        if not isinstance(rows, tuple) or {tuple(map(type, row)) for row in rows} != {(str, str)}:
            raise ValueError("it has something else than pairs of texts")
        texts: dict[str, str] = dict(rows)
        if len(texts) < len(set(rows)):
            raise ValueError("a name has two texts")
    except ValueError as error:
        raise DataError(
            f"{key} '{path}' cannot be used: {error}",
            where=key,
            allowed=allowed,
        ) from None
    return texts
