"""A recording of electrodes: channels, parts without a gap, events and samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.base import DataError

STIM = "stim"
"""The kind of a channel of events."""
_COMPOSITE = ("STI101", "STI 014")
"""Event channels that join the lines of the others in one number."""
_PART_S = 60
"""Seconds of a recording that are in memory at once while it is read whole."""
_TOLERANCE_S = 1e-3


@dataclass(frozen=True)
class Channel:
    """A channel as the file describes it."""

    name: str
    kind: str
    """eeg, stim, eog, misc, ..., as MNE names the types of channels."""
    is_bad: bool = False
    """Whether the recording marks it as bad."""
    problem: str = ""
    """Why its values are not microvolts; empty: they are."""


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
    """An annotation, a marker, or a change of an event channel."""

    onset_s: float
    """By the clock of the recording."""
    duration_s: float
    name: str


@dataclass(frozen=True)
class Recording:
    """An open recording; only its samples are still on the disk."""

    path: Path
    rate_hz: float
    """Of all channels without a problem."""
    channels: tuple[Channel, ...]
    pieces: tuple[RecordingPiece, ...]
    annotations: tuple[Event, ...]
    notes: tuple[str, ...]
    """What the user should know about how the file was read."""
    read_samples: Callable[[Sequence[int], int, int], np.ndarray]
    """Reads samples [channel, time]; see `read`."""
    has_integers: bool = False
    """Whether the file stores integers, so that all values are finite."""
    files: tuple[Path, ...] = ()
    """The files of samples."""

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
            begins = start_s >= piece.start_s - _TOLERANCE_S and start_s < piece.end_s
            if begins and end_s <= piece.end_s + 2 * _TOLERANCE_S:
                return piece
        return None

    def check(self, picks: Sequence[int]) -> None:
        """Raise DataError if the values of one of the channels are not microvolts."""
        for channel in (self.channels[pick] for pick in picks):
            if channel.problem:
                raise DataError(
                    f"channel '{channel.name}' of '{self.path.name}' {channel.problem}",
                    where=str(self.path),
                    allowed="channels of volts, with a scale",
                    fix="leave it out of data.channel or data.channels, or name the unit of channels "
                    "without one:  --set data.unit=uV",
                )

    def read(self, picks: Sequence[int], first: int, last: int) -> np.ndarray:
        """Microvolts [channel, time] of `picks`; numbers of event channels. Reads the disk.

        Raises DataError.
        """
        self.check(picks)
        return self.read_samples(picks, first, last)

    def parts(self) -> Iterator[tuple[int, int]]:
        """First sample and end of each part that is read at once."""
        length = max(1, round(_PART_S * self.rate_hz))
        for piece in self.pieces:
            begin, end = piece.bounds(self.rate_hz)
            for first in range(begin, end, length):
                yield first, min(end, first + length)

    def events(self) -> list[Event]:
        """Annotations, and changes of event channels to a number above 0, by onset.

        The number is the name. The first sample is no change. Reads the disk, event channels a
        minute at a time. Raises DataError.
        """
        events = list(self.annotations)
        stim = [n for n, channel in enumerate(self.channels) if channel.kind == STIM]
        joined = [n for n in stim if self.names[n] in _COMPOSITE]
        for pick in joined[:1] or stim:
            events += self._changes(pick)
        return sorted(events, key=lambda event: (event.onset_s, event.duration_s, event.name))

    def _changes(self, pick: int) -> Iterator[Event]:
        before = np.zeros(0)
        for first, last in self.parts():
            values = self.read([pick], first, last)[0]
            before = before if len(before) else values[:1]
            changed = np.flatnonzero((np.diff(values, prepend=before) != 0) & (values > 0))
            for sample in changed:
                yield Event((first + int(sample)) / self.rate_hz, 0.0, f"{values[sample]:.0f}")
            before = values[-1:]
