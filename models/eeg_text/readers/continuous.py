"""Continuous recordings, cut into windows or into the sentences that were read."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.data_files import BadRecords, few
from models.common.recordings import bids
from models.common.recordings import files as recording_files
from models.common.recordings.files import notes_of, open_recording
from models.common.recordings.recording import Event, Recording
from models.eeg_text import formats
from models.eeg_text.readers import raw, tables
from models.eeg_text.readers.tables import ChannelPicks, Reading
from models.eeg_text.recordings import RATE_HZ, Item, ReadingOptions, Recordings, normalized

BLOCK = 8
"""Windows per block, which stay in one split; one window is left out between two blocks."""
TEXTS = ("text", *bids.NAMES)
"""Columns of a table of BIDS that may hold the sentences."""
MANY = 10
"""From this number of subjects on, each subject is a group."""
MAX_NAMES = 8
"""Names of dropped channels in the facts."""
SHORTEST = 64
"""Shortest segment, in samples at 500 Hz."""
UNIT = "microvolts, converted from the unit of the file"


def read(path: Path, reading: ReadingOptions) -> Recordings:
    """The recordings at `path`, a file or a folder. Reads the disk; raises DataError."""
    channel_map, texts = reading.channel_map, None
    bad_records = BadRecords("recordings, segments and rows")
    if reading.channels is not None and channel_map is None:
        channel_map = tables.load_channel_map(reading.channels)
    if reading.texts is not None:
        path_of_texts = Path(reading.texts).expanduser()
        texts = tables.pairs(path_of_texts, "data.texts", reading.columns, bad_records)
    forms = {file: form for file, form in first_parts(path).items() if form in formats.RECORDED}
    items: list[Item] = []
    has_many = len({bids.subject(file) or file for file in forms}) >= MANY
    said: list[str] = []
    dropped: set[str] = set()
    for file in list(forms):
        try:
            cuts = _RecordingItems(file, channel_map, texts, reading, has_many)
            items += cuts.items(bad_records)
        except DataError as error:
            if reading.on_bad == "stop" or len(forms) == 1:
                raise
            bad_records.add(file.name, error.message, error.fix)
            forms[file] = ""
            continue
        said += [*notes_of(cuts.recording), *cuts.notes]
        dropped.update(cuts.placed.dropped)
    skipped = bad_records.finish(reading.on_bad, len(items))
    if not items:
        problem = f"'{path}' has no EEG segment of at least {SHORTEST / RATE_HZ:g} s"
        raise DataError(problem, where="data.path", allowed="; ".join(formats.RECORDED))
    shown = sorted(dropped)
    if len(shown) > MAX_NAMES:
        shown[MAX_NAMES:] = [f"and {len(shown) - MAX_NAMES} more"]
    channels = max(len(item.channels) for item in items)
    notes: dict[str, Any] = {"channels": channels, "channels_dropped": shown}
    if said:
        notes["notes"] = few(said)
    form = "; ".join(dict.fromkeys(filter(None, forms.values())))
    return Recordings(str(path), form, UNIT, items, Counter(bad=skipped), notes)


def first_parts(path: Path) -> dict[Path, str]:
    """The formats of the recordings of a file or folder; of split ones, that of the first part."""
    forms = {file: form for file in formats.candidates(path) if (form := formats.of_file(file))}
    later: set[Path] = set()
    for file, form in forms.items():
        if form == formats.FIF:
            with suppress(DataError):  # reading it reports that
                later.update(part.resolve() for part in recording_files.later_parts(file))
    return {file: form for file, form in forms.items() if file.resolve() not in later}


class _RecordingItems:
    """The segments of one recording."""

    def __init__(
        self,
        path: Path,
        channel_map: Mapping[str, str] | None,
        texts: Mapping[str, str] | None,
        reading: ReadingOptions,
        is_group: bool,
    ) -> None:
        """`texts`: of events; `is_group`: all windows are one group. Raises DataError."""
        self.path, self.texts, self.reading, self.is_group = path, texts, reading, is_group
        self.notes: list[str] = []
        self.recording = open_recording(path, reading.unit)
        self.placed = _placed(self.recording, channel_map)
        columns = reading.columns.items()
        self.bids_columns = {name: meaning.removesuffix("_s") for name, meaning in columns}

    def items(self, bad_records: BadRecords) -> list[Item]:
        """Sentences if their times are known, otherwise windows; without bad ones."""
        readings = self._readings(bad_records)
        if not self.recording.has_integers:
            raw.check_values(self.recording, self.placed.picks)
        if readings is not None:
            return list(self._sentences(readings, bad_records))
        return list(self._all_windows() if self.reading.to_predict else self._windows())

    def _item(self, text: str | None, group: str, start_s: float, samples: int, where: str) -> Item:
        options, placed = (self.reading.line_hz, self.reading.unit), self.placed
        subject = bids.subject(self.path) or self.path.stem
        load = partial(raw.read_segment, self.path, placed, start_s, samples, *options)
        return Item(text, subject, group, samples, where, load, placed.slots, start_s)

    def _windows(self) -> Iterator[Item]:
        """Windows between gaps; one is left out between two blocks."""
        samples, name = self.reading.samples, self.path.name
        length = samples / RATE_HZ
        starts = [
            piece.start_s + number * length
            for piece in self.recording.pieces
            for number in range(int(piece.seconds / length + 1e-9))
        ]
        whole = bids.subject(self.path) or name
        for number, start in enumerate(starts):
            block, position = divmod(number, BLOCK + 1)
            if position < BLOCK or self.is_group:
                group = whole if self.is_group else f"{name}, block {block + 1}"
                yield self._item(None, group, start, samples, f"{name}, {start:.1f} s")

    def _all_windows(self) -> Iterator[Item]:
        """The whole recording; the last window before a gap or the end may be shorter."""
        name = self.path.name
        for piece in self.recording.pieces:
            total = int(piece.seconds * RATE_HZ + 1e-6)
            for first in range(0, total, self.reading.samples):
                samples = min(self.reading.samples, total - first)
                if samples >= SHORTEST:
                    start = piece.start_s + first / RATE_HZ
                    yield self._item(None, name, start, samples, f"{name}, {start:.1f} s")

    def _readings(self, bad_records: BadRecords) -> list[Reading] | None:
        """The sentences that were read: those of events, or of a table; None: nothing names any."""
        reading, beside = self.reading, tables.beside(self.path)
        if self.texts is None and beside is not None:
            has_text = not reading.to_predict
            readings, notes = tables.sentences(beside, bad_records, reading.columns, has_text)
            self.notes += notes
            return readings
        of_bids = bids.events_path(self.path) if reading.needs_text else None
        if self.texts is not None:
            return self._named(self.texts, of_bids, bad_records)
        return None if of_bids is None else self._of_bids(of_bids, bad_records)

    def _of_bids(self, path: Path, bad_records: BadRecords) -> list[Reading] | None:
        """The events of a table of BIDS, whose names are the sentences."""
        table = bids.read_events(path, bad_records, TEXTS, self.bids_columns)
        self.notes += table.notes
        if table.column is not None:
            named = [event for event in table.events if event.name]
            return self._timed(named, table.events, {event.name: event.name for event in named})
        if self.reading.to_predict:
            return None
        raise DataError(
            f"'{path.name}' has no sentences",
            where=str(path),
            allowed=f"a filled column of {', '.join(TEXTS)}",
            fix="name their column:  --set 'data.columns=[NAME=text]'  or name events by  "
            "--set data.texts=FILE",
        )

    def _named(
        self, texts: Mapping[str, str], of_bids: Path | None, bad_records: BadRecords
    ) -> list[Reading]:
        """The sentence of each event that `texts` names; first of the events beside the recording.

        Raises DataError if it names none.
        """
        names: set[str] = set()
        sources: list[Sequence[Event]] = []
        if of_bids is not None:
            # Both names of the same rows, whose problems count once.
            for name, bad in zip(bids.NAMES, (bad_records, BadRecords()), strict=True):
                sources.append(bids.read_events(of_bids, bad, [name], self.bids_columns).events)
        for events in (*sources, self.recording.events()):
            if known := [event for event in events if event.name in texts]:
                return self._timed(known, events, texts)
            names |= {event.name for event in events if event.name}
        raise DataError(
            f"data.texts names no event of '{self.path.name}'",
            where="data.texts",
            allowed=f"events of the recording: {', '.join(sorted(names)) or 'none'}",
        )

    def _timed(
        self, known: Iterable[Event], events: Iterable[Event], texts: Mapping[str, str]
    ) -> list[Reading]:
        """The sentence of each event; one without a duration lasts until the next of `events`."""
        onsets = sorted({event.onset_s for event in events})
        readings = []
        for event in known:
            later = onsets[bisect_right(onsets, event.onset_s) :][:1]
            longest = self.reading.samples / RATE_HZ
            lasts = event.duration_s or min([longest, *(t - event.onset_s for t in later)])
            where = f"{self.path.name}, event {event.name} at {event.onset_s:.2f} s"
            readings.append(Reading(event.onset_s, lasts, texts[event.name], where))
        return readings

    def _sentences(self, readings: list[Reading], bad_records: BadRecords) -> Iterator[Item]:
        recording = self.recording
        for reading in readings:
            start, end = reading.onset_s, reading.onset_s + reading.duration_s
            samples, group = round(reading.duration_s * RATE_HZ), normalized(reading.text)
            problem = fix = ""
            if not group and not self.reading.to_predict:
                problem = "the text has no words"
            elif samples < SHORTEST:
                problem = f"{reading.duration_s:g} s is too short"
                fix = f"give each one a duration of at least {SHORTEST / RATE_HZ:g} s"
            elif recording.piece(start, end) is None:
                problem = f"from {start:g} to {end:g} s there is a gap in the recording"
                if start < 0:
                    problem = f"begins at {start:g} s, before the recording"
                elif end > recording.end_s + 1 / RATE_HZ:
                    problem = f"ends at {end:g} s, after the recording ({recording.end_s:g} s)"
            if problem:
                bad_records.add(reading.where, problem, fix)
            else:
                yield self._item(reading.text, group, start, samples, reading.where)


def _placed(recording: Recording, channel_map: Mapping[str, str] | None) -> ChannelPicks:
    names = dict(enumerate(recording.names))
    others: list[str] = []
    if channel_map is None:
        picks = raw.eeg_channels(recording)
        others = [name for pick, name in names.items() if pick not in picks]
        names = {pick: names[pick] for pick in picks}
    placed = tables.place_channels(names, channel_map)
    placed = replace(placed, dropped=[*placed.dropped, *others])
    # A few known names are not enough: names such as E2 mean other electrodes in other systems.
    if not placed.picks or (channel_map is None and 2 * len(placed.picks) < len(names)):
        raise DataError(
            f"only {len(placed.picks)} of the {len(names)} channels of '{recording.path.name}' are "
            f"known; unknown: {', '.join(placed.dropped[:8])} ...",
            where=str(recording.path) if channel_map is None else "data.channels",
            allowed=tables.CHANNELS_ALLOWED,
            fix="map them:  --set data.channels=FILE",
        )
    raw.check_channels(recording, placed.picks)
    return placed
