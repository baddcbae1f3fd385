"""A recording of electrodes: channels, parts without a gap, events and samples."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import library_errors

NO_UNIT = "names no unit"
STIM = "stim"
"""The kind of a channel of events."""
_COMPOSITE = ("STI101", "STI 014")
"""Event channels that join the lines of the others in one number."""
_TRIGGER_BITS = 0xFFFF
"""The bits of the channel Status of BioSemi that are triggers; the others are its own state."""
_PART_S = 60
"""Seconds of a recording that are in memory at once while it is read whole."""
_TOLERANCE_S = 1e-3


@dataclass
class Channel:
    """A channel as the file describes it."""

    name: str
    kind: str
    """eeg, stim, eog, misc, ..., as MNE names the types of channels."""
    rate_hz: float
    scale: float
    """Microvolts of 1 as MNE gives it; of event channels 1."""
    problem: str = ""
    """Why its values are not microvolts; empty: they are."""
    is_bad: bool = False
    """Whether the recording marks it as bad."""


@dataclass(frozen=True)
class RecordingPiece:
    """A part of a recording without a gap."""

    start_s: float
    """By the clock of the recording, which is 0 at its first sample."""
    seconds: float

    @property
    def end_s(self) -> float:
        """By the clock of the recording."""
        return self.start_s + self.seconds

    def bounds(self, rate_hz: float) -> tuple[int, int]:
        """Its first sample and its end."""
        return round(self.start_s * rate_hz), round(self.end_s * rate_hz)


@dataclass(frozen=True)
class Event:
    """An annotation, a marker, a change of an event channel, or a row of a table."""

    onset_s: float
    """By the clock of the recording."""
    duration_s: float
    name: str
    where: str = ""
    """File and line of a row."""


@dataclass(frozen=True)
class Recording:
    """An open recording; only its samples are still on the disk."""

    path: Path
    raw: Any
    """The recording of MNE."""
    rate_hz: float
    """Of all channels without a problem."""
    channels: Sequence[Channel]
    pieces: Sequence[RecordingPiece]
    annotations: Sequence[Event]
    notes: Sequence[str]
    """What the user should know about how the file was read."""
    faster: Sequence[str] = ()
    """Channels of a higher rate, which are not read."""

    @property
    def names(self) -> list[str]:
        """The name of each channel."""
        return [channel.name for channel in self.channels]

    @property
    def end_s(self) -> float:
        """The end by the clock of the recording."""
        return self.pieces[-1].end_s

    def piece(self, start_s: float, end_s: float) -> RecordingPiece | None:
        """The piece with all of a time span, up to a millisecond; None: none has it whole."""
        for piece in self.pieces:
            begins_before = piece.start_s <= start_s + _TOLERANCE_S
            ends_after = piece.end_s >= end_s - 2 * _TOLERANCE_S
            if begins_before and ends_after and start_s < piece.end_s:
                return piece
        return None

    def check(self, picks: Sequence[int]) -> None:
        """Raise DataError if the values of one of the channels are not microvolts."""
        for pick in picks:
            channel = self.channels[pick]
            if not channel.problem:
                continue
            raise DataError(
                f"channel '{channel.name}' of '{self.path.name}' {channel.problem}",
                where=str(self.path),
                allowed="channels of volts, with a scale, of one sampling rate",
                fix="--set data.unit=uV" if channel.problem == NO_UNIT else "",
                hint="leave it out, or export the recording at one sampling rate, in volts",
            )

    def read(self, picks: Sequence[int], first: int, last: int) -> ndarray:
        """Microvolts [channel, time] of `picks`. Reads the disk.

        Raises DataError.
        """
        self.check(picks)
        order = np.argsort(picks)  # MNE reads channels in file order
        in_order = np.asarray(picks)[order]
        with recording_errors(self.path):
            samples, _ = self.raw[in_order, first:last]
        values = np.empty_like(samples)
        values[order] = samples
        for row, pick in zip(values, picks, strict=True):
            row *= self.channels[pick].scale
        return values

    def parts(self) -> Iterator[tuple[int, int]]:
        """First sample and end of each part that is read at once."""
        length = max(1, round(_PART_S * self.rate_hz))
        for piece in self.pieces:
            begin, end = piece.bounds(self.rate_hz)
            for first in range(begin, end, length):
                yield first, min(end, first + length)

    def events(self) -> list[Event]:
        """Annotations, and changes of event channels to a number other than 0, by onset.

        The number is the name. The first sample is no change. Reads the disk, event channels whole.
        Raises DataError.
        """
        from mne import find_events

        events = list(self.annotations)
        names = [channel.name for channel in self.channels if channel.kind == STIM]
        composite = [name for name in names if name in _COMPOSITE]
        is_bdf = self.path.suffix.lower() == ".bdf"
        if names:
            with recording_errors(self.path):
                changes = find_events(
                    self.raw,
                    composite[:1] or names,
                    consecutive=True,
                    shortest_event=1,
                    mask=_TRIGGER_BITS if is_bdf else None,
                    mask_type="and",
                    verbose="warning",
                )
            for sample, _, number in changes.tolist():
                onset_s = (sample - self.raw.first_samp) / self.rate_hz
                events.append(Event(onset_s, 0.0, str(number)))
        return sorted(events, key=lambda event: (event.onset_s, event.duration_s, event.name))


@contextmanager
def recording_errors(path: Path) -> Iterator[list[str]]:
    """Raises any exception of MNE as a DataError about `path`; gives its warnings, each once.

    Nothing reaches the terminal.
    """
    from mne.utils import catch_logging

    notes: list[str] = []
    with (
        library_errors(
            f"'{path.name}' cannot be read",
            str(path),
            allowed="a continuous, complete recording",
            hint="copy it and the files beside it again, or export it again from the program that "
            "recorded it",
        ),
        warnings.catch_warnings(record=True) as caught,
        catch_logging(),
    ):
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield notes
    for warning in caught:
        first_line = str(warning.message).strip().split("\n")[0]
        if first_line not in notes:
            notes.append(first_line)
