"""Continuous recordings, cut into windows or into the sentences that were read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

from gearshift.models.base import DataError
from gearshift.models.common.config import declared_columns
from gearshift.models.common.data_files import BadRecords
from gearshift.models.common.recordings import bids, edf
from gearshift.models.common.recordings.files import open_recording
from gearshift.models.common.recordings.recording import Event, Recording
from gearshift.models.eeg_text.config import CHANNELS, COLUMNS, Data
from gearshift.models.eeg_text.readers import channels, tables
from gearshift.models.eeg_text.readers.channels import ChannelPicks
from gearshift.models.eeg_text.recordings import MOST_UV, RATE_HZ, Item, Use, normalized

BLOCK = 8
"""Windows per block, which stay in one split; one window is left out between two blocks."""
TEXTS = ("text", *bids.NAMES)
"""Columns of a table of BIDS that may hold the sentences."""
MANY = 10
"""From this number of subjects on, each subject is a group."""
SHORTEST = 64
"""Shortest segment, in samples at 500 Hz."""
UNIT = "microvolts, converted from the unit of the file"
LOW_HZ = 0.5
HIGH_HZ = 50.0
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""
Cut = tuple[str | None, str, float, int, str, tuple[float, float]]
"""Text, group, start, samples and place of an Item, and the seconds in which it is filtered, without
EEG of other groups."""


class Cutter:
    """Cuts continuous recordings into segments; collects notes, bad records and unused channels."""

    def __init__(
        self,
        files: Sequence[Path],
        data: Data,
        use: Use,
        channel_map: Mapping[str, str] | None,
        bad_records: BadRecords,
    ) -> None:
        """`files`: all that will be cut. Reads data.channels and data.texts; raises DataError."""
        self.channel_map = channel_map
        if data.channels is not None and channel_map is None:
            self.channel_map = channels.load_channel_map(data.channels)
        self.has_many = len({bids.subject(file) or file for file in files}) >= MANY
        """Whether all windows of a subject are one group."""
        self.use = use
        self.samples = data.seq_len
        self.options = (data.line_hz, data.unit)
        self.bad_records = bad_records
        self.notes = list[str]()
        self.dropped = set[str]()
        self.columns = declared_columns(data.columns)
        self.texts: dict[str, str] | None = None
        if use == "text" and data.texts is not None:
            path = Path(data.texts).expanduser()
            self.texts = tables.pairs(path, "data.texts", self.columns, bad_records)

    def read(self, path: Path) -> list[Item]:
        """Sentences if their times are known, otherwise windows; without bad ones. Raises DataError."""
        recording = open_recording(path, self.options[1])
        placed = channels.place(recording, self.channel_map)
        notes = [*recording.notes]
        readings = self._readings(recording, notes)
        cuts = (
            self._windows(recording) if readings is None else self._sentences(recording, readings)
        )
        items = []
        for text, group, start, samples, where, (begin, end) in cuts:
            piece = recording.piece(start, start + samples / RATE_HZ)
            assert piece is not None, "windows and sentences are cut from pieces"
            within = max(begin, piece.start_s), min(end, piece.end_s)
            load = partial(read_segment, path, placed, start, samples, within, *self.options)
            subject = bids.subject(path) or path.stem
            items.append(Item(text, subject, group, samples, where, load, placed.slots, start))
        if path.suffix.lower() not in edf.SUFFIXES:  # which has integers
            check_values(recording, placed.picks)
        self.notes += notes
        self.dropped.update(placed.dropped)
        return items

    def _windows(self, recording: Recording) -> Iterator[Cut]:
        """Windows between gaps; to train, whole ones, of which one is left out between two blocks.

        To predict, the last window before a gap or the end may be shorter.
        """
        name = recording.path.name
        length = self.samples / RATE_HZ
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
                within = (
                    own[0][0] - length,
                    own[-1][0] + 2 * length,
                )  # also what is left out around it
                yield None, f"{name}, block {block + 1}", *where, within

    def _readings(self, recording: Recording, notes: list[str]) -> list[Event] | None:
        """The sentences that were read, as names of events; None: no event and no table names any.

        Raises DataError for events without any.
        """
        texts = self.texts
        path = recording.path
        declared = self.columns
        bad = self.bad_records
        beside = filter(Path.is_file, map(path.with_suffix, (".tsv", ".csv")))
        if texts is None and (table := next(beside, None)):
            needed = COLUMNS[:2] if self.use == "predict" else COLUMNS
            return bids.read_events(table, bad, notes, needed[2:], declared, needed)
        of_bids = None if self.use == "encoder" else bids.events_path(path)
        sources: list[list[Event]] = []
        if of_bids is not None:
            declared = {name: meaning.removesuffix("_s") for name, meaning in declared.items()}
            columns = TEXTS if texts is None else bids.NAMES
            sources = [bids.read_events(of_bids, bad, notes, columns, declared, known=texts or ())]
            texts = {e.name: e.name for e in sources[0] if e.name} if texts is None else texts
        if texts is None or (not texts and self.use == "predict"):
            return None
        if self.texts is not None:
            sources.append(recording.events())
        for events in sources:
            onsets = sorted({event.onset_s for event in events})
            if known := [event for event in events if event.name in texts]:
                return [self._timed(event, onsets, texts[event.name], path.name) for event in known]
        names = sorted({event.name for events in sources for event in events} - {""})
        raise DataError(
            f"no event of '{path.name}' names a sentence",
            where=str(of_bids) if self.texts is None else "data.texts",
            allowed=f"one of {', '.join(names)}" if names else f"a column {' or '.join(TEXTS)}",
            fix="name their column:  --set 'data.columns=[NAME=text]'  or name events by  "
            "--set data.texts=FILE",
        )

    def _timed(self, event: Event, onsets: Sequence[float], text: str, name: str) -> Event:
        """The sentence of an event; one without a duration lasts until the next of `onsets`."""
        later = onsets[bisect_right(onsets, event.onset_s) :][:1]
        lasts = event.duration_s or min(
            [self.samples / RATE_HZ, *(t - event.onset_s for t in later)]
        )
        return Event(
            event.onset_s, lasts, text, f"{name}, event {event.name} at {event.onset_s:.2f} s"
        )

    def _sentences(self, recording: Recording, readings: list[Event]) -> Iterator[Cut]:
        onsets = [*(reading.onset_s for reading in readings[1:]), inf]
        last = -inf
        for reading, following in zip(readings, onsets, strict=True):
            start = reading.onset_s
            end = reading.onset_s + reading.duration_s
            within = (min(start, last), max(end, following))
            last = max(end, last)
            samples = round(reading.duration_s * RATE_HZ)
            group = normalized(reading.name)
            if not group and self.use != "predict":
                self.bad_records.add(reading.where, "the text has no words")
            elif samples < SHORTEST:
                fix = f"give each one a duration of at least {SHORTEST / RATE_HZ:g} s"
                self.bad_records.add(reading.where, f"{reading.duration_s:g} s is too short", fix)
            elif recording.piece(start, end) is None:
                problem = (
                    f"{start:g} to {end:g} s has a gap, or is not within the {recording.end_s:g} s"
                )
                self.bad_records.add(reading.where, f"{problem} of the recording")
            else:
                yield reading.name, group, start, samples, reading.where, within


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

    recording = open_recording(path, unit)
    end_s = start_s + samples / RATE_HZ
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
