"""Pairs of texts, of a JSON object or a table."""

from __future__ import annotations

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
    texts: dict[str, str] = {}
    bad_records = BadRecords()
    try:
        if is_table(path):
            rows = [tuple(map(text_of, row)) for _, row in Table(TextFile(path)).rows(bad_records)]
            bad_records.finish("stop", len(rows))
        else:
            # Objects as pairs, so that a name that stands twice is seen; a list has no tuples.
            rows = list(parse_json("".join(TextFile(path).chunks()), list))
        for row in rows:
            if not isinstance(row, tuple) or list(map(type, row)) != [str, str]:
                raise ValueError("not a table of texts")
            event, text = row
            if texts.setdefault(event, text) != text:
                raise ValueError(f"'{event}' is '{texts[event]}' and '{text}'")
        if not texts:
            raise ValueError("it is empty")
    except (ValueError, TypeError) as error:  # a number is no object
        raise DataError(
            f"{key} '{path}' cannot be used: {error}",
            where=key,
            allowed=allowed,
        ) from None
    return texts
