"""Pairs of texts, of a JSON object or a table."""

from __future__ import annotations

from collections.abc import Mapping

from gearshift.models.base import DataError
from gearshift.models.common.data_files import existing_path
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.table import Table, is_table, renamed, text_of
from gearshift.models.common.text_file import TextFile, parse_json
from gearshift.models.eeg_text.config import EVENT, TEXT


def pairs(
    name: str,
    key: str,
    declared: Mapping[str, str],
    bad_records: BadRecords,
) -> dict[str, str]:
    """A JSON object of texts, or two columns of a table.

    The columns are event and text, by their names or as `declared`, or the only ones. `name` is the
    value of the setting `key`. Reads the disk; raises DataError, also where a name has two texts.
    """
    allowed = 'a JSON object {"name": "..."} or a CSV of two columns, each name once'
    path = existing_path(name, allowed, key)
    texts: dict[str, str] = {}
    try:
        if is_table(path):
            table = Table(TextFile(path))
            header = renamed(table.header, declared)
            columns = [header.index(name) for name in (EVENT, TEXT) if name in header]
            if len(columns) < 2:
                columns = [number for number, name in enumerate(header) if name]
            if len(columns) != 2:
                names = ", ".join(map(str, table.header))
                raise ValueError(f"of {names} none are {EVENT} and {TEXT}")
            rows = []
            for _, cells in table.rows(bad_records):
                rows.append(tuple(text_of(cells[number]) for number in columns))
        else:
            # Objects as pairs, so that a name that stands twice is seen; a list has no tuples.
            rows = list(parse_json("".join(TextFile(path).chunks()), list))
        for row in rows:
            if not isinstance(row, tuple) or list(map(type, row)) != [str, str]:
                raise ValueError("not a table of texts")
            name, text = row
            if texts.setdefault(name, text) != text:
                raise ValueError(f"'{name}' is '{texts[name]}' and '{text}'")
        if not texts:
            raise ValueError("it is empty")
    except (ValueError, TypeError) as error:  # a number is no object
        raise DataError(
            f"{key} '{path}' cannot be used: {error}",
            where=key,
            allowed=allowed,
        ) from None
    return texts
