"""EEG with what was read meanwhile, as every reader gives it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from models.common.data_files import OnBad

RATE_HZ = 500


@dataclass(frozen=True)
class Item:
    """One stretch of EEG: a sentence that was read, or a window of a recording."""

    text: str | None
    subject: str
    group: str
    """What a split keeps together: the normalised sentence, or the block of a recording."""
    samples: int
    """Its length at 500 Hz."""
    where: str
    """File and place, for messages."""


class Source(Protocol):
    """Where EEG is read from, piece by piece; can be sent to other processes."""

    def eeg(self, number: int) -> np.ndarray:
        """Microvolts [time, 105] at 500 Hz, float32, of item `number`. Touches disk.

        Channels that were not recorded are 0. Raises DataError.
        """

    def recorded(self, number: int) -> np.ndarray:
        """Which of the 105 channels item `number` has, bool."""


@dataclass(frozen=True)
class Recordings:
    """All that a run learns from."""

    name: str
    form: str
    unit: str
    """Unit of the numbers in the file, and what says so."""
    items: Sequence[Item]
    source: Source
    left_out: Counter[str] = field(default_factory=Counter)
    """Counts: what cannot be used."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What else a person should know."""


@dataclass(frozen=True)
class Reading:
    """How recordings are read; see config.Data."""

    on_bad: OnBad = "stop"
    samples: int = 800
    channels: str | None = None
    texts: str | None = None
    line_hz: int = 50


def normalised(text: str) -> str:
    """`text` without case, punctuation and double blanks: what counts as the same sentence."""
    return " ".join(words(text))


def words(text: str) -> list[str]:
    """The words of `text`, in small letters, without punctuation."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())
