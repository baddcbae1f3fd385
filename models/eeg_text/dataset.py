"""From recordings to samples: what both stages share, and the samples of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models.base import CachedFeatures, DataError, Draws
from models.eeg_text.config import TOKEN_SAMPLES
from models.eeg_text.noise_control import phase_randomised, strangers
from models.eeg_text.recordings import Recordings
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


class Encoded(NamedTuple):
    """What the encoder made of EEG."""

    memory: np.ndarray
    """Hidden states [time / 4, width]."""
    samples: int
    """Of the EEG, where it is valid."""


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
                allowed="finite numbers",
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
        self.encodings: CachedFeatures | None = None
        """Of the inputs of `seen`, by their number."""
        groups = [recordings.items[n].group for n in self.numbers]
        self.is_judged = any(map(texts.is_judged, groups))

    @property
    def inputs(self) -> int:
        """How many inputs the encoder has: EEG, and where it is judged, noise of each."""
        return len(self) * (2 if self.is_judged else 1)

    def seen(self, number: int) -> np.ndarray:
        """What the encoder is given: the EEG of a position, or after all of it the noise of one."""
        if number < len(self):
            return self.given(number)
        index = number - len(self)
        rng = np.random.default_rng([self.rules.seed, 2, index])
        return prepared(phase_randomised(self.given(index), rng), self.rules.samples)

    def _input(self, number: int) -> np.ndarray | Encoded:
        """What `seen` gives, or what the encoder made of it where that is known."""
        if self.encodings is None:
            return self.seen(number)
        row = self.encodings[number]
        return Encoded(row["memory"], int(row["samples"]))

    def sample(self, index: int, draws: Draws) -> dict[str, Any]:
        """See models/base.py: Split."""
        item = self.recordings.items[self.numbers[index]]
        tokens = self.texts.tokens(item.group)
        inputs = tokens[:-1]
        if self.word_dropout:
            kept = draws.rng().random(len(inputs)) >= self.word_dropout
            kept[0] = True
            inputs = np.where(kept, inputs, self.texts.tokenizer.hidden)
        sample: dict[str, Any] = {
            "eeg": self._input(index),
            "inputs": inputs,
            "labels": tokens[1:],
            "sentence": item.group,
            "subject": item.subject,
        }
        if self.texts.is_judged(item.group):
            sample |= {
                "noise": self._input(len(self) + index),
                "other": self._input(int(self.strangers[index])),
                "text": self.texts.text(item.group),
                "number": self.texts.number(item.group),
                "candidates": self.texts.candidates(item.group),
            }
        return sample


SHORTEST, LONGEST = 2, 8
"""Tokens of a span: 16 to 64 ms."""


def spans(rng: np.random.Generator, tokens: int, share: float) -> np.ndarray:
    """Which of `tokens` are hidden, bool: spans that cover `share` of them, to the nearest token.

    Each is 2 to 8 tokens long, with one visible token between two at least. Too few tokens for
    one span have none.
    """
    hidden = np.zeros(tokens, dtype=bool)
    lengths = _lengths(rng, round(share * tokens))
    visible = tokens - sum(lengths)
    while lengths and visible < len(lengths) + 1:
        visible += lengths.pop()
    if not lengths:
        return hidden
    # Each order of hidden spans and visible tokens is equally likely.
    before = np.sort(rng.choice(visible + 1, len(lengths), replace=False))
    starts = before + np.concatenate(([0], np.cumsum(lengths)[:-1]))
    for start, length in zip(starts, lengths, strict=True):
        hidden[start : start + length] = True
    return hidden


def _lengths(rng: np.random.Generator, total: int) -> list[int]:
    """Lengths from 2 to 8 that add up to `total`; none where it is less than 2."""
    lengths: list[int] = []
    while total >= SHORTEST:
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        if total - length < SHORTEST:
            # The rest is too short for a span of its own.
            length = total if total <= LONGEST else total - SHORTEST
        lengths.append(length)
        total -= length
    return lengths
