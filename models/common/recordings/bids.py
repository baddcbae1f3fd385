"""Tables of events beside recordings, as BIDS names and writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from models.base import DataError
from models.common.data_files import BadRecords
from models.common.recordings.recording import Event
from models.common.table import MISSING, open_table, renamed

NAMES = ("trial_type", "value")
"""The columns that may name an event; the first of them that is filled does."""
_KINDS = ("_eeg", "_ieeg", "_meg", "_emg", "_nirs")
"""Ends of names of recordings, which tables of events do not have."""
_EVENTS = "_events.tsv"
NO_COLUMNS: Mapping[str, str] = {}


@dataclass(frozen=True)
class EventTable:
    """The events of a recording by a table beside it."""

    path: Path
    column: str | None
    """The column of their names; None: the table has none."""
    events: tuple[Event, ...]
    """By onset; the name is empty where the table has `n/a`, and the duration 0."""
    notes: tuple[str, ...]


def events_path(recording: Path) -> Path | None:
    """The table of events beside `recording`: NAME_events.tsv of NAME_eeg.edf or NAME.edf.

    Reads the disk. Source: Gorgolewski et al., The brain imaging data structure, 2016, and its
    specification, Task events.
    """
    stem = recording.name.removesuffix(".gz").rpartition(".")[0]
    bare = next((stem.removesuffix(kind) for kind in _KINDS if stem.endswith(kind)), stem)
    paths = [recording.with_name(name + _EVENTS) for name in dict.fromkeys((bare, stem))]
    return next((path for path in paths if path.is_file()), None)


def subject(recording: Path) -> str:
    """The subject of a recording, sub-LABEL of sub-LABEL_….edf, whose runs are other files.

    Empty for a name that is not of BIDS.
    """
    named = re.match(r"sub-[0-9A-Za-z]+(?=_)", recording.name)
    return named[0] if named else ""


def read_events(
    path: Path,
    bad_records: BadRecords,
    names: Sequence[str] = NAMES,
    declared: Mapping[str, str] = NO_COLUMNS,
) -> EventTable:
    """The events in a table; onsets are seconds after the first sample of the recording.

    `names`: the columns that may name them; `declared`: the meaning of a column by its name in
    lower case. A row without an onset is a bad record. Reads the disk. Raises DataError.
    """
    table = open_table(path)
    header = renamed(table.header, declared)
    if missing := [name for name in ("onset", "duration") if name not in header]:
        raise DataError(
            f"'{path.name}' has no column {missing[0]}",
            where=f"{path}:{table.header_line}",
            allowed="a table of events of BIDS: onset, duration and trial_type or value",
            fix="write the columns as BIDS names them, or rename the table",
        )
    columns = [name for name in names if name in header]
    rows = []
    for line, cells in table.rows(bad_records):
        row = dict(zip(header, cells, strict=True))
        try:
            onset, lasts = (table.number(row[name], name) for name in ("onset", "duration"))
            if isnan(onset):
                raise ValueError(f"onset is '{row['onset']}'")
        except ValueError as error:
            bad_records.add(f"{path}:{line}", str(error), "write a number of seconds")
            continue
        rows.append((onset, 0.0 if isnan(lasts) else lasts, row))
    column = next((c for c in columns if any(_name(row[c]) for *_, row in rows)), None)
    events = [Event(on, lasts, _name(row[column]) if column else "") for on, lasts, row in rows]
    unnamed = sum(not event.name for event in events)
    notes = [f"{path.name}: {note}" for note in table.notes]
    if column and unnamed:
        count = f"{unnamed} of {len(events)} rows"
        notes.append(f"{path.name}: {count} have no {column} (n/a) and are left out")
    events.sort(key=lambda event: event.onset_s)
    return EventTable(path, column, tuple(events), tuple(notes))


def _name(cell: object) -> str:
    text = str(cell or "").strip()
    return "" if text.lower() in MISSING else text
