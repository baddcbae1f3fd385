"""Tables beside recordings: sentences with their times, and maps of names and channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import isnan
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import IGNORE, BadRecords, existing_path
from models.common.recordings.bids import NO_COLUMNS
from models.common.table import columns_option, is_table, open_table, renamed
from models.common.text_file import TextFile, parse_json
from models.eeg_text.config import COLUMNS, EVENT, TEXT
from models.eeg_text.montage import INDICES, NAMES, SLOTS


@dataclass(frozen=True)
class Reading:
    """A sentence that was read, with its time."""

    onset_s: float
    duration_s: float
    text: str
    where: str


def beside(recording: Path) -> Path | None:
    """The table of sentences beside a recording: its name with .tsv or .csv. Reads the disk."""
    paths = (recording.with_suffix(suffix) for suffix in (".tsv", ".csv"))
    return next((path for path in paths if path.is_file()), None)


def sentences(
    path: Path, bad_records: BadRecords, declared: Mapping[str, str] = NO_COLUMNS, has_text: bool = True
) -> tuple[list[Reading], list[str]]:
    """The rows of a table of sentences, and notes about how it was read.

    `declared`: the meaning of a column by its name in lower case. Unless `has_text`, the column
    `text` is not read. A row without numbers is a bad record. Reads the disk; raises DataError.
    """
    table = open_table(path)
    header = renamed(table.header, declared)
    names = COLUMNS if has_text else COLUMNS[:2]
    where, allowed = f"{path}:{table.header_line}", ", ".join(names)
    if missing := [name for name in names if name not in header]:
        fix = columns_option({"NAME": missing[0]})
        has = ", ".join(map(str, table.header))
        problem = f"'{path.name}' has no column {missing[0]} among: {has}"
        raise DataError(problem, where=where, allowed=allowed, fix=fix)
    if twice := [name for name in names if header.count(name) > 1]:
        problem = f"'{path.name}' has {header.count(twice[0])} columns {twice[0]}"
        fix = "rename those that are not meant"
        raise DataError(problem, where=where, allowed="one column of each name", fix=fix)
    columns = [header.index(name) for name in names]
    readings = []
    for number, row in table.rows(bad_records):
        where = f"{path.name}:{number}"
        cells = [row[column] for column in columns]
        try:
            times = [table.number(cells[i], COLUMNS[i]) for i in range(2)]
            if any(map(isnan, times)):
                raise ValueError(f"{COLUMNS[0 if isnan(times[0]) else 1]} has no number")
        except ValueError as error:
            bad_records.add(where, str(error), "write numbers of seconds")
            continue
        readings.append(Reading(times[0], times[1], "".join(cells[2:]).strip(), where))
    return readings, [f"{path.name}: {note}" for note in table.notes]


def pairs(
    path: Path, key: str, declared: Mapping[str, str] = NO_COLUMNS, bad_records: BadRecords | None = None
) -> dict[str, str]:
    """A JSON object of texts, or two columns of a table, whose bad rows are errors or bad records.

    The columns are those that `declared` names event and text, or the only ones. `key` names the
    setting. Reads the disk; raises DataError, also where a name has two texts.
    """
    allowed = 'a JSON object {"name": "..."} or a CSV of two columns, each name once'
    path = existing_path(str(path), allowed, key)

    def unusable(reason: str, fix: str = "") -> DataError:
        return DataError(f"{key} '{path}' cannot be used: {reason}", where=key, allowed=allowed, fix=fix)

    rows: list[Any]
    if is_table(path):
        bad, table = bad_records or BadRecords("rows"), open_table(path)
        header = renamed(table.header, declared)
        chosen = [header.index(name) for name in (EVENT, TEXT) if name in header]
        if not {EVENT, TEXT} <= {*header} & {*declared.values()}:
            chosen = [number for number, name in enumerate(header) if name]
        if len(chosen) != 2:
            names = list(map(str, table.header))
            meanings = dict(zip(names, (EVENT, TEXT, *[IGNORE] * len(names)), strict=False))
            fix = columns_option(meanings) if key == "data.texts" and names[2:] else ""
            raise unusable(f"it has the columns {', '.join(names)}", fix)
        cells = ([row[number] for number in chosen] for _, row in table.rows(bad))
        rows = [["" if cell is None else str(cell).strip() for cell in pair] for pair in cells]
        if bad_records is None:
            bad.finish("stop", len(rows))
    else:
        try:
            rows = parse_json("".join(TextFile(path).chunks()), list)
        except ValueError as error:
            raise unusable(str(error)) from None
    texts: dict[str, str] = {}
    for pair in rows if isinstance(rows, list) else ():
        if not (isinstance(pair, list | tuple) and list(map(type, pair)) == [str, str]):
            raise unusable("not a table of texts")
        if texts.setdefault(pair[0], pair[1]) != pair[1]:
            raise unusable(f"'{pair[0]}' is '{texts[pair[0]]}' and '{pair[1]}'")
    if not texts:
        raise unusable("not a table of texts")
    return texts


CHANNELS_ALLOWED = (
    f"electrodes of the 10-10 system or EGI's, such as Fz or E11; regions: {', '.join(INDICES)}"
)


@dataclass(frozen=True)
class ChannelPicks:
    """The mapped channels of a recording."""

    picks: list[int]
    """Indices into the channels of the recording."""
    slots: tuple[int, ...]
    """Their indices among the 105 channels."""
    dropped: list[str]
    """Names of the unmapped channels."""


def electrode(name: str) -> str | None:
    """The electrode of a channel name, such as `EEG Fp1-REF` or `Fp1.`; None: unknown."""
    label = name.strip().upper().removeprefix("EEG").strip().split("-")[0].strip(" .")
    return NAMES.get(label)


def load_channel_map(path: str) -> dict[str, str]:
    """Your map from channel names, in capitals, to electrodes or regions.

    Reads the disk. Raises DataError for an unknown electrode or region.
    """
    targets = pairs(Path(path).expanduser(), "data.channels")
    for name, target in targets.items():
        if target not in INDICES and electrode(target) is None:
            raise DataError(
                f"channel '{name}' is mapped to unknown '{target}'",
                where=f"data.channels, {path}",
                allowed=CHANNELS_ALLOWED,
                did_you_mean=get_close_matches(target, [*INDICES, *SLOTS], n=1, cutoff=0.0)[0],
            )
    return {name.upper(): target for name, target in targets.items()}


def place_channels(names: Mapping[int, str], channel_map: Mapping[str, str] | None) -> ChannelPicks:
    """The electrode of each channel; of two channels with one electrode, the first is used.

    `names` by the index of a channel. With a `channel_map`, only that counts. A region stands for
    its next free electrode.
    """
    taken: dict[int, int] = {}
    dropped = []
    for pick, name in names.items():
        target = name if channel_map is None else channel_map.get(name.upper(), "")
        if channel_map is not None and target in INDICES:
            free = [slot for slot in INDICES[target] if slot not in taken]
        else:
            slot_name = electrode(target)
            free = [] if slot_name is None else [SLOTS.index(slot_name)]
        if free and free[0] not in taken:
            taken[free[0]] = pick
        else:
            dropped.append(name)
    return ChannelPicks(list(taken.values()), tuple(taken), dropped)
