"""From recordings to samples: what both stages share, and the samples of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.base import DataError, Draws
from models.eeg_text.config import TOKEN_SAMPLES
from models.eeg_text.noise import phase_randomised, strangers
from models.eeg_text.recordings import Recordings
from models.eeg_text.spans import spans
from models.eeg_text.texts import Texts

LARGEST = 10.0
"""Standard deviations at which EEG is clipped."""
_FLAT_UV = 1e-6


@dataclass(frozen=True)
class Rules:
    """How recordings become samples."""

    samples: int
    seed: int
    is_noise: bool


class Fixed:
    """See models/base.py: Draws; the same for every sample."""

    def rng(self) -> np.random.Generator:
        """See Draws."""
        return np.random.default_rng(0)


def prepared(eeg: np.ndarray, samples: int) -> np.ndarray:
    """The centre of `eeg` [time, channel], each channel with mean 0 and deviation 1, clipped.

    A channel that does not move is 0.
    """
    start = max(0, (len(eeg) - samples) // 2)
    cut = eeg[start : start + samples]
    mean = cut.mean(axis=0, dtype=np.float64)
    deviation = cut.std(axis=0, dtype=np.float64)
    scaled = (cut - mean) / np.where(deviation > _FLAT_UV, deviation, np.inf)
    return np.clip(scaled, -LARGEST, LARGEST).astype(np.float32)


class Samples:
    """EEG of the items of one split, by position."""

    def __init__(self, recordings: Recordings, numbers: Sequence[int], rules: Rules) -> None:
        """`numbers`: which items."""
        self.recordings, self.numbers, self.rules = recordings, list(numbers), rules
        groups = [recordings.items[n].group for n in self.numbers]
        self.strangers = strangers(groups, rules.seed)

    def __len__(self) -> int:
        return len(self.numbers)

    def own(self, index: int) -> np.ndarray:
        """The EEG of a position, as it was recorded."""
        number = self.numbers[index]
        eeg = self.recordings.source.eeg(number)
        if not np.isfinite(eeg).all():
            raise DataError(
                "EEG holds values that are no numbers",
                where=self.recordings.items[number].where,
                legal="finite numbers",
            )
        return prepared(eeg, self.rules.samples)

    def noise(self, index: int, purpose: int) -> np.ndarray:
        """Noise with the spectrum of a position's EEG, always the same for one `purpose`."""
        rng = np.random.default_rng([self.rules.seed, purpose, self.numbers[index]])
        return prepared(phase_randomised(self.own(index), rng), self.rules.samples)

    def given(self, index: int) -> np.ndarray:
        """The EEG of a position; in a noise control noise, with the spectrum of another one's.

        Not of its own: the spectrum and the length could tell which sentence it was.
        """
        if not self.rules.is_noise:
            return self.own(index)
        return self.noise(int(self.strangers[index]), purpose=1)


class MaskedSamples(Samples):
    """EEG with spans to fill in."""

    def __init__(
        self,
        recordings: Recordings,
        numbers: Sequence[int],
        rules: Rules,
        share: float,
        learns: bool,
    ) -> None:
        """With `learns` other spans are hidden in each pass over the data."""
        super().__init__(recordings, numbers, rules)
        self.share, self.learns = share, learns

    def sample(self, index: int, draws: Draws) -> dict[str, Any]:
        """See models/base.py: Split.

        In a noise control the encoder sees noise, and is to tell what was recorded.
        """
        target = self.own(index)
        rng = draws.rng() if self.learns else np.random.default_rng([self.rules.seed, index])
        tokens = -(-len(target) // TOKEN_SAMPLES)
        number = self.numbers[index]
        sample = {
            "eeg": target,
            "hidden": spans(rng, tokens, self.share),
            "recorded": self.recordings.source.recorded(number),
            "subject": self.recordings.items[number].subject,
        }
        if self.rules.is_noise:
            sample["seen"] = self.given(index)
        return sample


class TextSamples(Samples):
    """EEG with the sentence that was read; to be judged, with all that it is compared with."""

    def __init__(
        self,
        recordings: Recordings,
        numbers: Sequence[int],
        rules: Rules,
        texts: Texts,
        word_dropout: float,
    ) -> None:
        super().__init__(recordings, numbers, rules)
        self.texts, self.word_dropout = texts, word_dropout

    def sample(self, index: int, draws: Draws) -> dict[str, Any]:
        """See models/base.py: Split."""
        item = self.recordings.items[self.numbers[index]]
        tokens = self.texts.tokens(item.group)
        inputs = tokens[:-1]
        if self.word_dropout:
            kept = draws.rng().random(len(inputs)) >= self.word_dropout
            kept[0] = True
            inputs = np.where(kept, inputs, self.texts.tokenizer.hidden)
        eeg = self.given(index)
        sample: dict[str, Any] = {
            "eeg": eeg,
            "inputs": inputs,
            "labels": tokens[1:],
            "sentence": item.group,
            "subject": item.subject,
        }
        if self.texts.is_judged(item.group):
            stranger = int(self.strangers[index])
            noise = prepared(
                phase_randomised(eeg, np.random.default_rng([self.rules.seed, 2, index])),
                self.rules.samples,
            )
            sample |= {
                "noise": noise,
                "other": self.given(stranger),
                "text": self.texts.text(item.group),
                "number": self.texts.number(item.group),
                "candidates": self.texts.candidates(item.group),
            }
        return sample
