"""Continuous recordings, cut into windows or into the sentences that were read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.common.config import declared_columns
from models.common.data_files import BadRecords, few
from models.common.recordings import bids
from models.common.recordings.files import later_parts, notes_of, open_recording
from models.common.recordings.recording import Event, Recording
from models.eeg_text import formats
from models.eeg_text.config import CHANNELS, Data
from models.eeg_text.readers import channels, tables
from models.eeg_text.readers.channels import ChannelPicks
from models.eeg_text.readers.tables import Reading
from models.eeg_text.recordings import MOST_UV, RATE_HZ, Item, Recordings, Use, normalized

BLOCK = 8
"""Windows per block, which stay in one split; one window is left out between two blocks."""
TEXTS = ("text", *bids.NAMES)
"""Columns of a table of BIDS that may hold the sentences."""
MANY = 10
"""From this number of subjects on, each subject is a group."""
SHORTEST = 64
"""Shortest segment, in samples at 500 Hz."""
UNIT = "microvolts, converted from the unit of the file"
LOW_HZ, HIGH_HZ = 0.5, 50.0
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""
Cut = tuple[str | None, str, float, int, str, tuple[float, float]]
"""Text, group, start, samples and place of an Item, and the seconds in which it is filtered, without
EEG of other groups."""


def read(path: Path, data: Data, use: Use, channel_map: Mapping[str, str] | None = None) -> Recordings:
    """The recordings at `path`, a file or a folder; see files.read. Reads the disk; raises DataError."""
    if data.channels is not None and channel_map is None:
        channel_map = channels.load_channel_map(data.channels)
    forms = {file: form for file, form in first_parts(path).items() if form != formats.ZUCO}
    has_many = len({bids.subject(file) or file for file in forms}) >= MANY
    cutter, items, dropped = _Cutter(data, use, has_many), list[Item](), set[str]()
    for file in list(forms):
        try:
            recording = open_recording(file, data.unit)
            placed = channels.place(recording, channel_map)
            found = cutter.items(recording, placed)
            if not recording.has_integers:
                check_values(recording, placed.picks)
        except DataError as error:
            if data.on_bad == "stop" or len(forms) == 1:
                raise
            cutter.bad_records.add(file.name, error.message, error.fix)
            forms[file] = ""
            continue
        items += found
        dropped.update(placed.dropped)
    skipped = cutter.bad_records.finish(data.on_bad, len(items))
    if not items:
        problem = f"'{path}' has no EEG segment of at least {SHORTEST / RATE_HZ:g} s"
        raise DataError(problem, where="data.path", allowed="; ".join(formats.FORMATS))
    facts: dict[str, Any] = {
        "format": "; ".join(dict.fromkeys(filter(None, forms.values()))),
        "unit": UNIT,
        "channels": max(len(item.channels) for item in items),
        "channels_dropped": few(sorted(dropped)),
    }
    facts |= {"bad": skipped} if skipped else {}
    facts |= {"notes": few(cutter.notes)} if cutter.notes else {}
    return Recordings(str(path), items, facts, channel_map)


def first_parts(path: Path) -> dict[Path, str]:
    """The formats of the recordings of a file or folder; of split ones, that of the first part."""
    forms = {file: form for file in formats.candidates(path) if (form := formats.of_file(file))}
    later: set[Path] = set()
    for file, form in forms.items():
        if form == formats.FIF:
            with suppress(DataError):  # reading it reports that
                later.update(part.resolve() for part in later_parts(file))
    return {file: form for file, form in forms.items() if file.resolve() not in later}


class _Cutter:
    """Cuts recordings into segments; collects notes and bad records."""

    def __init__(self, data: Data, use: Use, has_many: bool) -> None:
        """`has_many`: all windows of a subject are one group. Reads data.texts; raises DataError."""
        self.use, self.has_many, self.samples = use, has_many, data.seq_len
        self.options = data.line_hz, data.unit
        self.bad_records, self.notes = BadRecords("recordings, segments and rows"), list[str]()
        self.columns = declared_columns(data.columns)
        self.bids_columns = {name: meaning.removesuffix("_s") for name, meaning in self.columns.items()}
        self.texts: dict[str, str] | None = None
        if use == "text" and data.texts is not None:
            path = Path(data.texts).expanduser()
            self.texts = tables.pairs(path, "data.texts", self.columns, self.bad_records)

    def items(self, recording: Recording, placed: ChannelPicks) -> list[Item]:
        """Sentences if their times are known, otherwise windows; without bad ones. Raises DataError."""
        path, notes = recording.path, notes_of(recording)
        readings = self._readings(recording, notes)
        cuts = self._windows(recording) if readings is None else self._sentences(recording, readings)
        items = []
        for text, group, start, samples, where, (begin, end) in cuts:
            piece = recording.piece(start, start + samples / RATE_HZ)
            assert piece is not None, "windows and sentences are cut from pieces"
            within = max(begin, piece.start_s), min(end, piece.end_s)
            load = partial(read_segment, path, placed, start, samples, within, *self.options)
            subject = bids.subject(path) or path.stem
            items.append(Item(text, subject, group, samples, where, load, placed.slots, start))
        self.notes += notes
        return items

    def _windows(self, recording: Recording) -> Iterator[Cut]:
        """Windows between gaps; to train, whole ones, of which one is left out between two blocks.

        To predict, the last window before a gap or the end may be shorter.
        """
        name, length = recording.path.name, self.samples / RATE_HZ
        shortest = SHORTEST if self.use == "predict" else self.samples
        windows = [
            (piece.start_s + first / RATE_HZ, min(self.samples, total - first))
            for piece in recording.pieces
            for total in [int(piece.seconds * RATE_HZ + 1e-6)]
            for first in range(0, total - shortest + 1, self.samples)
        ]
        for number, (start, samples) in enumerate(windows):
            where = (start, samples, f"{name}, {start:.1f} s")
            block, position = divmod(number, BLOCK + 1)
            if self.has_many or self.use == "predict":
                yield None, bids.subject(recording.path) or name, *where, (-inf, inf)
            elif position < BLOCK:
                own = windows[number - position :][:BLOCK]
                within = (own[0][0] - length, own[-1][0] + 2 * length)  # also what is left out around it
                yield None, f"{name}, block {block + 1}", *where, within

    def _readings(self, recording: Recording, notes: list[str]) -> list[Reading] | None:
        """The sentences that were read: those of events, or of a table; None: nothing names any.

        Raises DataError for events without any.
        """
        beside, texts, name = tables.beside(recording.path), self.texts, recording.path.name
        if texts is None and beside is not None:
            return tables.sentences(beside, self.bad_records, self.columns, self.use != "predict", notes)
        of_bids = None if self.use == "encoder" else bids.events_path(recording.path)
        sources: Iterable[Sequence[Event]]
        if texts is None:
            if of_bids is None:
                return None
            table = bids.read_events(of_bids, self.bad_records, TEXTS, self.bids_columns)
            notes += table.notes
            texts = {event.name: event.name for event in table.events if event.name}
            if table.column is None and self.use == "predict":
                return None
            if table.column is None:
                raise DataError(
                    f"'{of_bids.name}' has no sentences",
                    where=str(of_bids),
                    allowed=f"a filled column of {', '.join(TEXTS)}",
                    fix="name their column:  --set 'data.columns=[NAME=text]'  or name events by  "
                    "--set data.texts=FILE",
                )
            sources = [table.events]
        else:
            sources = self._events(recording, of_bids)
        names: set[str] = set()
        for events in sources:
            if known := [event for event in events if event.name in texts]:
                return list(self._timed(known, events, texts, name))
            names |= {event.name for event in events if event.name}
        raise DataError(
            f"data.texts names no event of '{name}'",
            where="data.texts",
            allowed=f"events of the recording: {', '.join(sorted(names)) or 'none'}",
        )

    def _events(self, recording: Recording, of_bids: Path | None) -> Iterator[Sequence[Event]]:
        """Those of a table of BIDS by each of its names, then those of the recording."""
        if of_bids is not None:
            # Both names of the same rows, whose problems count once.
            for name, bad in zip(bids.NAMES, (self.bad_records, BadRecords()), strict=True):
                yield bids.read_events(of_bids, bad, [name], self.bids_columns).events
        yield recording.events()

    def _timed(
        self, known: Sequence[Event], events: Sequence[Event], texts: Mapping[str, str], name: str
    ) -> Iterator[Reading]:
        """The sentence of each event; one without a duration lasts until the next of `events`."""
        onsets, longest = sorted({event.onset_s for event in events}), self.samples / RATE_HZ
        for event in known:
            later = onsets[bisect_right(onsets, event.onset_s) :][:1]
            lasts = event.duration_s or min([longest, *(t - event.onset_s for t in later)])
            where = f"{name}, event {event.name} at {event.onset_s:.2f} s"
            yield Reading(event.onset_s, lasts, texts[event.name], where)

    def _sentences(self, recording: Recording, readings: list[Reading]) -> Iterator[Cut]:
        readings = sorted(readings, key=lambda reading: reading.onset_s)
        onsets, last = [*(reading.onset_s for reading in readings[1:]), inf], -inf
        for reading, following in zip(readings, onsets, strict=True):
            start, end = reading.onset_s, reading.onset_s + reading.duration_s
            within, last = (min(start, last), max(end, following)), max(end, last)
            samples, group = round(reading.duration_s * RATE_HZ), normalized(reading.text)
            problem = fix = ""
            if not group and self.use != "predict":
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
                self.bad_records.add(reading.where, problem, fix)
            else:
                yield reading.text, group, start, samples, reading.where, within


def read_segment(
    path: Path,
    placed: ChannelPicks,
    start_s: float,
    samples: int,
    within: tuple[float, float],
    line_hz: int,
    unit: str | None,
) -> np.ndarray:
    """Microvolts [time, 105] of `placed` from `start_s` on, at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins `within` these
    seconds: no filter sees a gap, or EEG of another split. Raises DataError.
    """
    from scipy.signal import resample_poly

    recording, end_s = open_recording(path, unit), start_s + samples / RATE_HZ
    rate = recording.rate_hz
    first = round(max(start_s - MARGIN_S, within[0]) * rate)
    last = round(min(end_s + MARGIN_S, within[1]) * rate)
    values = _filtered(recording.read(placed.picks, first, last), rate, line_hz)
    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
    values = resample_poly(values, ratio.numerator, ratio.denominator, axis=1)
    skipped = round((start_s - first / rate) * RATE_HZ)
    cut = values[:, max(0, skipped) :][:, :samples].T
    eeg = np.zeros((samples, CHANNELS), dtype=np.float32)
    # Of rounding, at an end, a value may be missing.
    eeg[:, placed.slots] = np.pad(cut, ((0, samples - len(cut)), (0, 0)), mode="edge")
    return eeg


def _filtered(eeg: np.ndarray, rate: float, line_hz: int) -> np.ndarray:
    from scipy.signal import butter, filtfilt, iirnotch, sosfiltfilt

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(eeg.shape[1] - 1, int(3 * rate))
    eeg = sosfiltfilt(band, eeg, axis=1, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        eeg = filtfilt(*iirnotch(line_hz, 30, fs=rate), eeg, axis=1, padlen=pad)
    return eeg


def check_values(recording: Recording, picks: Sequence[int]) -> None:
    """Raise DataError for a value that is not finite, or above 1 V; reads a minute at a time."""
    for first, end in recording.parts():
        values = np.abs(recording.read(picks, first, end))
        bad = np.flatnonzero(~(values <= MOST_UV).all(axis=0))  # also where NaN
        if len(bad):
            at = (first + int(bad[0])) / recording.rate_hz
            raise DataError(
                f"'{recording.path.name}' has a value at {at:.1f} s that is not finite or above 1 V",
                where=str(recording.path),
                allowed="finite values in volts",
                fix="check the unit of its channels, and export the recording again",
            )
