"""Continuous recordings, cut into windows or into the sentences that were read."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common.data_files import BadRecords, few
from models.common.recordings import bids
from models.common.recordings import files as recording_files
from models.common.recordings.files import notes_of, open_recording
from models.common.recordings.recording import Event, Recording
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS
from models.eeg_text.readers import raw, tables
from models.eeg_text.readers.tables import ChannelPicks
from models.eeg_text.recordings import RATE_HZ, Item, ReadingOptions, Recordings, normalized

BLOCK = 8
"""Windows per block, which stay in one split; one window is left out between two blocks."""
TEXTS = ("text", *bids.NAMES)
"""Columns of a table of BIDS that may hold the sentences."""
MANY = 10
"""From this number of recordings on, each recording is a group."""
MAX_NAMES = 8
"""Names of dropped channels in the facts."""
SHORTEST = 64
"""Shortest segment, in samples at 500 Hz."""
UNIT = "microvolts, converted from the unit of the file"


@dataclass(frozen=True)
class Segment:
    """An EEG segment of a recording."""

    file: int
    start_s: float
    item: Item


class ContinuousSource:
    """See recordings.SegmentSource."""

    def __init__(
        self, files: list[tuple[Path, ChannelPicks]], segments: list[Segment], line_hz: int
    ) -> None:
        self.files, self.segments, self.line_hz = files, segments, line_hz

    def eeg(self, number: int) -> np.ndarray:
        segment = self.segments[number]
        path, placed = self.files[segment.file]
        samples = segment.item.samples
        values = raw.read_segment(path, placed.picks, segment.start_s, samples, self.line_hz)
        eeg = np.zeros((len(values), CHANNELS), dtype=np.float32)
        eeg[:, placed.slots] = values
        return eeg

    def recorded(self, number: int) -> np.ndarray:
        recorded = np.zeros(CHANNELS, dtype=bool)
        recorded[self.files[self.segments[number].file][1].slots] = True
        return recorded


def read(path: Path, reading: ReadingOptions) -> Recordings:
    """The recordings at `path`, a file or a folder. Reads the disk; raises DataError."""
    channel_map = reading.channel_map
    if reading.channels is not None and channel_map is None:
        channel_map = tables.load_channel_map(reading.channels)
    texts = None
    if reading.texts is not None:
        path_of_texts, what = Path(reading.texts).expanduser(), "events to sentences"
        texts = tables.pairs(path_of_texts, "data.texts", what, reading.columns)
    forms = {p: formats.of_file(p) for p in formats.candidates(path)}
    later = later_parts(p for p, form in forms.items() if form == formats.FIF)
    paths = [
        p for p, form in forms.items() if form in formats.RECORDED and p.resolve() not in later
    ]
    files: list[tuple[Path, ChannelPicks]] = []
    segments: list[Segment] = []
    said: list[str] = []
    bad_records = BadRecords("recordings and segments")
    for recording_path in paths:
        try:
            placed = _placed(recording_path, channel_map)
            cuts = _Segments(recording_path, placed, reading, len(paths) >= MANY)
            segments += cuts.segments(len(files), texts, bad_records)
        except DataError as error:
            if reading.on_bad == "stop" or len(paths) == 1:
                raise
            bad_records.add(recording_path.name, error.message, error.fix)
            continue
        files.append((recording_path, placed))
        said += [*notes_of(cuts.recording), *cuts.notes]
    skipped = bad_records.finish(reading.on_bad, len(segments))
    if not segments:
        raise DataError(
            f"'{path}' has no EEG segment of at least {SHORTEST / RATE_HZ:g} s",
            where="data.path",
            allowed="; ".join(formats.RECORDED),
        )
    dropped = sorted({name for _, placed in files for name in placed.dropped})
    if len(dropped) > MAX_NAMES:
        dropped[MAX_NAMES:] = [f"and {len(dropped) - MAX_NAMES} more"]
    channels = max(len(placed.slots) for _, placed in files)
    notes: dict[str, Any] = {"channels": channels, "channels_dropped": dropped}
    if said:
        notes["notes"] = few(said)
    source = ContinuousSource(files, segments, reading.line_hz)
    items = [segment.item for segment in segments]
    form = "; ".join(dict.fromkeys(str(forms[file]) for file, _ in files))
    return Recordings(str(path), form, UNIT, items, source, Counter(bad=skipped), notes)


def later_parts(fif_files: Iterable[Path]) -> set[Path]:
    """The later parts of split recordings; MNE reads them with the first."""
    parts: set[Path] = set()
    for path in fif_files:
        with suppress(DataError):  # reading it reports that
            parts.update(part.resolve() for part in recording_files.later_parts(path))
    return parts


def _placed(path: Path, channel_map: Mapping[str, str] | None) -> ChannelPicks:
    recording = open_recording(path)
    all_names = recording.names
    picks = raw.eeg_channels(path) if channel_map is None else list(range(len(all_names)))
    names = [all_names[pick] for pick in picks]
    mapped = tables.place_channels(names, channel_map)
    others = [name for pick, name in enumerate(all_names) if pick not in picks]
    picks = [picks[number] for number in mapped.picks]
    placed = replace(mapped, picks=picks, dropped=[*mapped.dropped, *others])
    # A few known names are not enough: names such as E2 mean other electrodes in other systems.
    if not placed.picks or (channel_map is None and 2 * len(placed.picks) < len(names)):
        shown = ", ".join(placed.dropped[:8])
        raise DataError(
            f"only {len(placed.picks)} of the {len(names)} channels of '{path.name}' are known; "
            f"unknown: {shown} ...",
            where=str(path) if channel_map is None else "data.channels",
            allowed=tables.CHANNELS_ALLOWED,
            fix="map them:  --set data.channels=FILE",
        )
    raw.check_channels(recording, placed.picks)
    return placed


class _Segments:
    def __init__(
        self, path: Path, placed: ChannelPicks, reading: ReadingOptions, is_group: bool
    ) -> None:
        self.path, self.placed, self.samples = path, placed, reading.samples
        self.is_group, self.to_predict = is_group, reading.to_predict
        self.needs_text, self.columns = reading.needs_text, reading.columns
        self.notes: list[str] = []
        self.recording = open_recording(path)

    def segments(
        self, file: int, texts: Mapping[str, str] | None, bad_records: BadRecords
    ) -> list[Segment]:
        """Sentences if their times are known, otherwise windows; without bad ones."""
        readings = self._readings(texts, bad_records)
        if readings is not None:
            made = list(self._sentences(file, readings, bad_records))
        elif self.to_predict:
            made = list(self._all_windows(file))
        else:
            made = list(self._windows(file))
        if self.recording.has_integers:
            return made
        possible = raw.possible_seconds(self.path, self.placed.picks)
        return [segment for segment in made if self._is_possible(segment, possible, bad_records)]

    def _is_possible(self, segment: Segment, possible: np.ndarray, bad_records: BadRecords) -> bool:
        seconds = segment.item.samples / RATE_HZ
        piece = self.recording.piece(segment.start_s, segment.start_s + seconds)
        assert piece is not None, "segments are cut within pieces"
        start = segment.start_s + piece.stored_s - piece.start_s
        first = max(piece.stored_s, start - raw.MARGIN_S)
        stop = min(piece.stored_s + piece.seconds, start + seconds + raw.MARGIN_S)
        is_possible = bool(possible[int(first) : int(stop) + 1].all())
        if not is_possible:
            problem = "non-finite values, or above 1 V, within the margin of its filter"
            fix = "check the unit of its channels, and export the recording again"
            bad_records.add(segment.item.where, problem, fix)
        return is_possible

    def _windows(self, file: int) -> Iterator[Segment]:
        """Windows between gaps; one is left out between two blocks."""
        length = self.samples / RATE_HZ
        starts = [
            piece.start_s + number * length
            for piece in self.recording.pieces
            for number in range(int(piece.seconds / length + 1e-9))
        ]
        for number, start in enumerate(starts):
            block, position = divmod(number, BLOCK + 1)
            if position == BLOCK and not self.is_group:
                continue
            group = self.path.name if self.is_group else f"{self.path.name}, block {block + 1}"
            yield self._window(file, start, self.samples, group)

    def _all_windows(self, file: int) -> Iterator[Segment]:
        """The whole recording; the last window before a gap or the end may be shorter."""
        for piece in self.recording.pieces:
            total = int(piece.seconds * RATE_HZ + 1e-6)
            for start in range(0, total, self.samples):
                samples = min(self.samples, total - start)
                if samples >= SHORTEST:
                    onset = piece.start_s + start / RATE_HZ
                    yield self._window(file, onset, samples, self.path.name)

    def _window(self, file: int, start: float, samples: int, group: str) -> Segment:
        where = f"{self.path.name}, {start:.1f} s"
        return Segment(file, start, Item(None, self.path.stem, group, samples, where, start))

    def _readings(
        self, texts: Mapping[str, str] | None, bad_records: BadRecords
    ) -> list[tables.Reading] | None:
        """The sentences that were read: those of events, or of a table; None: nothing names any."""
        beside = tables.beside(self.path)
        if texts is None and beside is not None:
            has_text = not self.to_predict
            readings, notes = tables.sentences(beside, bad_records, self.columns, has_text)
            self.notes += notes
            return readings
        of_bids = bids.events_path(self.path) if self.needs_text else None
        if texts is not None:
            return self._named(texts, of_bids)
        return None if of_bids is None else self._of_bids(of_bids)

    def _of_bids(self, path: Path) -> list[tables.Reading] | None:
        """The events of a table of BIDS, whose names are the sentences."""
        table = bids.read_events(path, TEXTS, _bids_columns(self.columns))
        self.notes += table.notes
        if table.column is not None:
            named = [event for event in table.events if event.name]
            return self._timed(named, table.events, {event.name: event.name for event in named})
        if self.to_predict:
            return None
        raise DataError(
            f"'{path.name}' has no sentences",
            where=str(path),
            allowed=f"a filled column of {', '.join(TEXTS)}",
            fix="name their column:  --set 'data.columns=[NAME=text]'  or name events by  "
            "--set data.texts=FILE",
        )

    def _named(self, texts: Mapping[str, str], of_bids: Path | None) -> list[tables.Reading]:
        """The sentence of each event that `texts` names; first of the events beside the recording.

        Raises DataError if it names none.
        """
        names: set[str] = set()
        sources: list[Sequence[Event]] = []
        if of_bids is not None:
            columns = _bids_columns(self.columns)
            sources += [bids.read_events(of_bids, [c], columns).events for c in bids.NAMES]
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
        self, known: Sequence[Event], events: Sequence[Event], texts: Mapping[str, str]
    ) -> list[tables.Reading]:
        """The sentence of each event; one without a duration lasts until the next of `events`."""
        onsets = sorted({event.onset_s for event in events})
        readings = []
        for event in known:
            later = onsets[bisect_right(onsets, event.onset_s) :][:1]
            lasts = min(later[0] - event.onset_s if later else np.inf, self.samples / RATE_HZ)
            where = f"{self.path.name}, event {event.name} at {event.onset_s:.2f} s"
            lasts = event.duration_s or lasts
            readings.append(tables.Reading(event.onset_s, lasts, texts[event.name], where))
        return readings

    def _sentences(
        self, file: int, readings: list[tables.Reading], bad_records: BadRecords
    ) -> Iterator[Segment]:
        for reading in readings:
            samples = round(reading.duration_s * RATE_HZ)
            group = normalized(reading.text)
            end, recording = reading.onset_s + reading.duration_s, self.recording
            if not group and not self.to_predict:
                bad_records.add(reading.where, "the text has no words")
            elif samples < SHORTEST:
                problem = f"{reading.duration_s:g} s is too short"
                shortest = f"give each one a duration of at least {SHORTEST / RATE_HZ:g} s"
                bad_records.add(reading.where, problem, shortest)
            elif recording.piece(reading.onset_s, end) is None:
                bad_records.add(reading.where, _outside(recording, reading.onset_s, end))
            else:
                subject, onset = self.path.stem, reading.onset_s
                item = Item(reading.text, subject, group, samples, reading.where, onset)
                yield Segment(file, onset, item)


def _bids_columns(columns: Mapping[str, str]) -> dict[str, str]:
    return {name: meaning.removesuffix("_s") for name, meaning in columns.items()}


def _outside(recording: Recording, start_s: float, end_s: float) -> str:
    """Why a time span is not in the recording, or not whole."""
    if start_s < 0:
        return f"begins at {start_s:g} s, before the recording"
    if end_s > recording.end_s + 1 / RATE_HZ:
        return f"ends at {end_s:g} s, after the recording ({recording.end_s:g} s)"
    return f"from {start_s:g} to {end_s:g} s there is a gap in the recording"
