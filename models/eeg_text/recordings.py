"""The common form of all recordings: EEG segments with their text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from models.common.data_files import OnBad

RATE_HZ = 500
MOST_UV = 1e6
"""1 V: no electrode on a head gives more."""


@dataclass(frozen=True)
class Item:
    """One EEG segment: a sentence that was read, or a window of a recording."""

    text: str | None
    subject: str
    group: str
    """The group that stays in one split: the normalized sentence, or a block of a recording."""
    samples: int
    """Its length in samples at 500 Hz."""
    where: str
    """File and position, for messages."""
    start_s: float | None = None
    """Start within the recording, in seconds; None: unknown."""


class Source(Protocol):
    """Reads EEG segment by segment; can be pickled for other processes."""

    def eeg(self, number: int) -> np.ndarray:
        """Item `number` in microvolts [time, 105] at 500 Hz, float32. Reads the disk.

        Channels that were not recorded are 0. Raises DataError.
        """

    def recorded(self, number: int) -> np.ndarray:
        """Which of the 105 channels were recorded in item `number`, bool."""


@dataclass(frozen=True)
class Recordings:
    """All EEG segments of a run."""

    name: str
    form: str
    unit: str
    """Unit of the values, and how it is known."""
    items: Sequence[Item]
    source: Source
    left_out: Counter[str] = field(default_factory=Counter)
    """Counts of unusable segments, by reason."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Other facts for the user."""


@dataclass(frozen=True)
class Reading:
    """Options for reading recordings; see config.Data."""

    on_bad: OnBad = "stop"
    samples: int = 800
    channels: str | None = None
    texts: str | None = None
    line_hz: int = 50
    needs_text: bool = True
    """Read the events that BIDS stores beside a recording; otherwise it is cut into windows."""
    to_predict: bool = False
    """Read all EEG: texts are not needed, and nothing is left out between splits."""
    channel_map: Mapping[str, str] | None = None
    """The content of `channels`, if it was read before."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The meaning of a column of a table by its name in lower case."""


def normalized(text: str) -> str:
    """`text` without case, punctuation and double spaces: equal for the same sentence."""
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """The words of `text`, in lower case, without punctuation."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())
