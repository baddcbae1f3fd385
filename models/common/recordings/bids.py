"""Tables of events and channels beside recordings, as BIDS names and writes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import BadRecords
from gearshift.models.common.recordings.recording import Event
from gearshift.models.common.table import MISSING, Meanings, Table, renamed, text_of
from gearshift.models.common.text_file import TextFile

NAMES = ("trial_type", "value")
"""The columns that may name an event; the first of them that is columns does."""
_KIND = re.compile("_(eeg|ieeg|meg|emg|nirs)$")
"""The end of the name of a recording, which tables of events do not have."""
NO_COLUMNS: Meanings = {}


def events_path(recording: Path) -> Path | None:
    """The table of events beside `recording`: NAME_events.tsv of NAME_eeg.edf or NAME.edf.

    Reads the disk. Source: Gorgolewski et al., The brain imaging data structure, 2016, and its
    specification, Task events.
    """
    return _beside(recording, "_events.tsv")


def bad_channels(recording: Path, bad_records: BadRecords) -> set[str]:
    """The channels that the table beside `recording`, NAME_channels.tsv, gives the status bad.

    Reads the disk. Raises DataError. Source: as `events_path`, EEG, Channels description.
    """
    path = _beside(recording, "_channels.tsv")
    if path is None:
        return set()
    table = Table(TextFile(path))
    columns = [name.lower() for name in table.header]
    bad = set()
    if {"name", "status"} <= {*columns}:
        for _, cells in table.rows(bad_records):
            row = dict(zip(columns, map(text_of, cells), strict=True))
            if row["status"].lower() == "bad":
                bad.add(row["name"])
    return bad


def _beside(recording: Path, ending: str) -> Path | None:
    stem = recording.name.removesuffix(".gz").rpartition(".")[0]
    for name in (_KIND.sub("", stem), stem):
        path = recording.with_name(name + ending)
        if path.is_file():
            return path
    return None


def subject(recording: Path) -> str:
    """The subject of a recording, sub-LABEL of sub-LABEL_….edf, whose runs are other files.

    Empty for a name that is not of BIDS.
    """
    match = re.match(r"sub-[0-9A-Za-z]+(?=_)", recording.name)
    return match[0] if match else ""


def read_events(
    path: Path,
    bad_records: BadRecords,
    notes: list[str],
    names: Sequence[str] = NAMES,
    declared: Meanings = NO_COLUMNS,
    needed: Sequence[str] = ("onset", "duration"),
    known: Collection[str] = (),
) -> list[Event]:
    """The events in a table, by onset, which is in seconds after the first sample of the recording.

    `names`: the columns that may name them, of which the first does that is filled, or has one of
    the names that are `known`; the name is empty where the table has `n/a`, and the duration 0.
    `needed`: columns of onset, duration and others. `declared`: the meaning of a column by its name
    in lower case. A row without an onset is a bad record; adds to `notes` how the table was read.
    Reads the disk. Raises DataError.
    """
    table = Table(TextFile(path))
    header = renamed(table.header, declared)
    if any(header.count(name) != 1 for name in needed):
        raise DataError(
            f"'{path.name}' has no or several columns of {', '.join(needed)}, but "
            f"{', '.join(table.header)}",
            where=f"{path}:{table.header_line}",
            allowed=f"one column each of {', '.join(needed)}; names in {' or '.join(names)}",
            hint="rename the columns of the table",
        )
    rows = []
    for line, cells in table.rows(bad_records):
        row = dict(zip(header, cells, strict=True))
        where = f"{path.name}:{line}"
        try:
            onset, duration = (table.number(row[column], column) for column in needed[:2])
            if isnan(onset):
                raise ValueError(f"{needed[0]} is '{row[needed[0]]}'")
        except ValueError as error:
            bad_records.add(where, str(error), "write a number of seconds")
            continue
        event = Event(onset, 0.0 if isnan(duration) else duration, "", where)
        rows.append((event, {name: _name(row.get(name)) for name in names}))

    texts = {name: {named[name] for _, named in rows} - {""} for name in names}
    filled = [name for name in names if texts[name]]
    # The first of them, where none or several have known names.
    column = max(filled, key=lambda name: not texts[name].isdisjoint(known), default="")
    events = [replace(event, name=named.get(column, "")) for event, named in rows]
    notes += [f"{path.name}: {note}" for note in table.notes]
    return sorted(events, key=lambda event: event.onset_s)


def _name(cell: Any) -> str:
    text = text_of(cell)
    return "" if text.lower() in MISSING else text
