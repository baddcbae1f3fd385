"""Continuous recordings, cut into windows or into the sentences that were read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError
from gearshift.models.common.config import declared_columns
from gearshift.models.common.data_reports import BadRecords, listed
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
LOW_HZ = 0.5
HIGH_HZ = 50.0
MARGIN_S = 6.0
"""Read on both sides of a segment and removed after filtering: 0.5 Hz filters ring for seconds."""


class Segment(NamedTuple):
    """A part of a recording."""

    text: str | None
    group: str
    where: str
    start_s: float
    samples: int
    """At 500 Hz."""
    within_s: tuple[float, float]
    """What filters may see: no EEG of another group."""


@dataclass
class Cutter:
    """Cuts continuous recordings into segments; collects notes, bad records and unused channels.

    Reads data.channels and data.texts; raises DataError.
    """

    files: Sequence[Path]
    """All that will be cut."""
    data: Data
    use: Use
    channel_map: Mapping[str, str] | None
    bad_records: BadRecords

    def __post_init__(self) -> None:
        data = self.data
        if data.channels is not None and self.channel_map is None:
            self.channel_map = channels.load_channel_map(data.channels)
        subjects = {bids.subject(file) or file for file in self.files}
        # To predict there are no splits.
        self.splits_recordings = self.use != "predict" and len(subjects) < MANY
        self.notes = list[str]()
        self.dropped = set[str]()
        self.columns = declared_columns(data.columns)
        self.texts: dict[str, str] | None = None
        if self.use == "text" and data.texts is not None:
            self.texts = tables.pairs(data.texts, "data.texts")

    def read(self, path: Path) -> list[Item]:
        """Sentences if their times are known, otherwise windows; without bad ones.

        Raises DataError.
        """
        recording = open_recording(path, self.data.unit)
        electrodes = channels.place(recording, self.channel_map)
        self.notes += recording.notes
        self.dropped.update(electrodes.dropped)
        pairs = channels.differences(electrodes.dropped)
        if pairs:
            self.notes.append(
                f"{path.name}: {len(pairs)} channels are differences of two electrodes and are not "
                f"read: {listed(pairs, 3)}"
            )
        readings = self._readings(recording)
        segments = self._windows(recording)
        if readings is not None:
            segments = self._sentences(recording, readings)
        data = self.data
        items = []
        for segment in segments:
            item = Item(
                segment.text,
                bids.subject(path) or path.stem,
                segment.group,
                segment.samples,
                segment.where,
                partial(read_segment, path, data.unit, electrodes, data.line_hz, segment),
                electrodes.slots,
                segment.start_s,
            )
            items.append(item)
        if path.suffix.lower() not in edf.SUFFIXES:  # which has integers
            check_values(recording, electrodes.picks)
        return items

    def _windows(self, recording: Recording) -> Iterator[Segment]:
        """Windows between gaps; to train, whole ones, of which one is left out between two blocks.

        To predict, the last window before a gap or the end may be shorter.
        """
        longest = self.data.seq_len
        shortest = SHORTEST if self.use == "predict" else longest
        windows = []
        for piece in recording.pieces:
            total = int(piece.seconds * RATE_HZ + 1e-6)
            for first in range(0, total - shortest + 1, longest):
                windows.append((piece.start_s + first / RATE_HZ, min(longest, total - first)))

        name = recording.path.name
        group = bids.subject(recording.path) or name
        size = BLOCK if self.splits_recordings else len(windows)
        for first in range(0, len(windows), size + 1):
            block = windows[first : first + size]
            if self.splits_recordings:
                group = f"{name}, block {first // (size + 1) + 1}"
            # With what is left out on both sides of the block.
            length_s = longest / RATE_HZ
            within_s = (block[0][0] - length_s, block[-1][0] + 2 * length_s)
            for start_s, samples in block:
                where = f"{name}, {start_s:.1f} s"
                yield Segment(None, group, where, start_s, samples, within_s)

    def _readings(self, recording: Recording) -> list[Event] | None:
        """The sentences that were read, as names of events; None: no event and no table names any.

        Raises DataError for events without any.
        """
        path = recording.path
        texts = self.texts
        read_events = partial(bids.read_events, bad_records=self.bad_records, notes=self.notes)
        # First a table of sentences beside the recording, by its name.
        for table in map(path.with_suffix, (".tsv", ".csv")):
            if texts is None and table.is_file():
                return read_events(
                    table,
                    names=COLUMNS[2:],
                    declared=self.columns,
                    needed=COLUMNS[:2],
                )

        # Then the events of BIDS, and with data.texts those in the recording.
        sources = []
        of_bids = None if self.use == "encoder" else bids.events_path(path)
        if of_bids is not None:
            columns = {name: meaning.removesuffix("_s") for name, meaning in self.columns.items()}
            events = read_events(of_bids, names=TEXTS, declared=columns, known=texts or ())
            sources.append(events)
            if texts is None:
                texts = {event.name: event.name for event in events if event.name}
        if texts is None or (not texts and self.use == "predict"):
            return None  # windows need no text
        if self.texts is not None:
            sources.append(recording.events())

        # The first source that names a sentence has them all.
        for events in sources:
            readings = []
            onsets = [*sorted({event.onset_s for event in events}), inf]
            for event in events:
                if event.name not in texts:
                    continue
                onset_s = event.onset_s
                following_s = onsets[bisect_right(onsets, onset_s)]
                # Without a duration it lasts until the next event.
                most_s = min(self.data.seq_len / RATE_HZ, following_s - onset_s)
                where = f"{path.name}, event {event.name} at {onset_s:.2f} s"
                duration_s = event.duration_s or most_s
                readings.append(Event(onset_s, duration_s, texts[event.name], where))
            if readings:
                return readings
        raise DataError(
            f"no event of '{path.name}' names a sentence",
            where=str(of_bids) if self.texts is None else "data.texts",
            allowed=f"the names in data.texts, or a column {' or '.join(TEXTS)}",
            hint="name their column:  --set 'data.columns=[NAME=text]'  or name events by  "
            "--set data.texts=FILE",
        )

    def _sentences(
        self,
        recording: Recording,
        readings: Sequence[Event],
    ) -> Iterator[Segment]:
        # No filter may see the sentence before or after: it may be in another split.
        onsets = [*(reading.onset_s for reading in readings), inf]
        last = -inf
        for reading, following in zip(readings, onsets[1:], strict=True):
            start = reading.onset_s
            end = start + reading.duration_s
            within_s = (min(start, last), max(end, following))
            last = max(end, last)
            samples = round(reading.duration_s * RATE_HZ)
            group = normalized(reading.name)
            where = reading.where
            if not group and self.use != "predict":
                self.bad_records.add(where, "the text has no words")
            elif samples < SHORTEST:
                least = SHORTEST / RATE_HZ
                self.bad_records.add(where, f"{reading.duration_s:g} s is shorter than {least:g} s")
            elif recording.piece(start, end) is None:
                problem = f"{start:g} to {end:g} s has a gap, or ends after the recording"
                self.bad_records.add(where, problem)
            else:
                yield Segment(reading.name, group, where, start, samples, within_s)


def read_segment(
    path: Path,
    unit: str | None,
    electrodes: ChannelPicks,
    line_hz: int,
    segment: Segment,
) -> ndarray:
    """Microvolts [time, 105] of `electrodes` at 500 Hz, 0.5 to 50 Hz, float32.

    The mains frequency is filtered out. Reads only the segment and its margins: no filter sees a
    gap, or EEG of another split. Raises DataError.
    """
    from scipy.signal import butter, filtfilt, iirnotch, resample_poly, sosfiltfilt

    recording = open_recording(path, unit)
    rate = recording.rate_hz
    start_s = segment.start_s
    samples = segment.samples
    end_s = start_s + samples / RATE_HZ
    piece: Any = recording.piece(start_s, end_s)
    first = round(max(start_s - MARGIN_S, segment.within_s[0], piece.start_s) * rate)
    last = round(min(end_s + MARGIN_S, segment.within_s[1], piece.end_s) * rate)
    values = recording.read(electrodes.picks, first, last)

    band = butter(4, [LOW_HZ, HIGH_HZ], btype="bandpass", fs=rate, output="sos")
    pad = min(values.shape[1] - 1, int(3 * rate))
    values = sosfiltfilt(band, values, padlen=pad)
    if line_hz < 0.95 * rate / 2:
        values = filtfilt(*iirnotch(line_hz, 30, fs=rate), values, padlen=pad)

    ratio = Fraction(RATE_HZ / rate).limit_denominator(1000)
    values = resample_poly(values, ratio.numerator, ratio.denominator, axis=1)
    places = round((start_s - first / rate) * RATE_HZ) + np.arange(samples)
    eeg = np.zeros((samples, CHANNELS), dtype=np.float32)
    # Of rounding, at an end, a value may be missing.
    eeg[:, electrodes.slots] = values.take(places, axis=1, mode="clip").T
    return eeg


def check_values(recording: Recording, picks: Sequence[int]) -> None:
    """Raise DataError for a value that is not finite, or above 1 V; reads a minute at a time."""
    for first, end in recording.parts():
        values = recording.read(picks, first, end)
        if not (np.abs(values) <= MOST_UV).all():  # also where NaN
            raise DataError(
                f"'{recording.path.name}' has a value after {first / recording.rate_hz:.0f} s that "
                "is not finite or above 1 V",
                where=str(recording.path),
                allowed="finite values in volts",
                hint="check the unit of its channels, and export the recording again",
            )
