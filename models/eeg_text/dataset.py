"""Samples of EEG segments, masked or with text, and the noise of a noise control."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from models.base import CachedFeatures, Draws
from models.common.masked_series import draw_spans
from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES
from models.eeg_text.recordings import Item
from models.eeg_text.texts import SentenceTexts

LARGEST = 10.0
"""Standard deviations at which EEG is clipped."""
SHORTEST, LONGEST = 2, 8
"""Tokens per masked span: 16 to 64 ms."""
_FLAT_UV = 1e-6


def phase_randomised(eeg: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise with the power spectrum of each channel of `eeg` [time, channel], float32.

    Each channel gets its own random phases: no temporal order and no correlation between channels
    is left. Source: Theiler et al., Testing for nonlinearity in time series: the
    method of surrogate data, 1992.
    """
    spectrum = np.abs(np.fft.rfft(eeg, axis=0)).astype(np.float32)
    phases = rng.uniform(0, 2 * math.pi, spectrum.shape).astype(np.float32)
    phases[0] = 0
    if len(eeg) % 2 == 0:
        phases[-1] = 0  # the highest frequency has no phase
    return np.fft.irfft(spectrum * np.exp(1j * phases), n=len(eeg), axis=0).astype(np.float32)


def random_others(groups: list[str], seed: int) -> np.ndarray:
    """For each item a random item of another group, if there are two groups; int64.

    Items are drawn uniformly, so that the drawn item reveals nothing about the original.
    """
    rng = np.random.default_rng([seed, len(groups)])
    chosen = rng.integers(len(groups), size=len(groups))
    names = np.unique(groups, return_inverse=True)[1]
    while names.any() and (same := names[chosen] == names).any():
        chosen[same] = rng.integers(len(groups), size=int(same.sum()))
    return chosen


@dataclass(frozen=True)
class SampleRules:
    """How segments become samples."""

    samples: int
    """The longest window."""
    windows: int
    """The most windows of a segment."""
    seed: int
    is_noise: bool

    @property
    def most(self) -> int:
        """The most samples of a segment; longer ones are cropped."""
        return self.samples * self.windows

    def count(self, samples: int) -> int:
        return max(1, -(-min(samples, self.most) // self.samples))


class Features(NamedTuple):
    """Cached features of one input."""

    memory: np.ndarray
    """Hidden states [time / 4, width]."""
    samples: int
    """EEG samples per window, of which the hidden states are valid."""


def cut_windows(eeg: np.ndarray, samples: int) -> list[np.ndarray]:
    """`eeg` [time, channel] in the fewest windows of at most `samples`, of nearly equal length.

    `samples` and all starts are multiples of TOKEN_SAMPLES, so windows have the tokens of `eeg`.
    """
    count = max(1, -(-len(eeg) // samples))
    tokens = -(-len(eeg) // TOKEN_SAMPLES)
    starts = [TOKEN_SAMPLES * (number * tokens // count) for number in range(count + 1)]
    return [eeg[start:stop] for start, stop in pairwise(starts)]


def prepared(eeg: np.ndarray, samples: int) -> np.ndarray:
    """The center of `eeg` [time, channel], each channel with mean 0 and deviation 1, clipped.

    A flat channel is 0.
    """
    start = max(0, (len(eeg) - samples) // 2)
    cut = eeg[start : start + samples]
    mean = cut.mean(axis=0, dtype=np.float64)
    deviation = cut.std(axis=0, dtype=np.float64)
    scaled = (cut - mean) / np.where(deviation > _FLAT_UV, deviation, np.inf)
    return np.clip(scaled, -LARGEST, LARGEST).astype(np.float32)


def read_segment(item: Item, samples: int) -> np.ndarray:
    """The EEG of an item for the model; see `prepared`. Reads the disk. Raises DataError."""
    return prepared(item.load(), samples)


class SegmentSamples:
    """EEG segments of the items of one split, by index."""

    def __init__(self, items: Sequence[Item], numbers: Sequence[int], rules: SampleRules) -> None:
        """`items`: of all splits; `numbers`: those of this split."""
        self.numbers, self.rules = list(numbers), rules
        self.items = [items[n] for n in numbers]
        self.random_others = random_others([item.group for item in self.items], rules.seed)
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int) -> Item:
        """The item of a sample."""
        return self.items[index]

    def own(self, index: int) -> np.ndarray:
        """The recorded EEG of a sample."""
        return self._segment(index)

    def _segment(self, number: int) -> np.ndarray:
        """That of an item; the last one is kept, for its next window."""
        if self._last is None or self._last[0] != number:
            self._last = number, read_segment(self.items[number], self.rules.most)
        return self._last[1]

    def given(self, index: int) -> np.ndarray:
        """The EEG of a sample; in a noise control, noise with the spectrum of another segment.

        Not of the same segment: its spectrum and length could reveal the sentence.
        """
        if not self.rules.is_noise:
            return self._segment(index)
        other = int(self.random_others[index])
        rng = np.random.default_rng([self.rules.seed, 1, self.numbers[other]])
        return prepared(phase_randomised(self._segment(other), rng), self.rules.most)


class MaskedSamples(SegmentSamples):
    """Windows of EEG with masked spans, by index: all windows of all segments."""

    def __init__(
        self,
        items: Sequence[Item],
        numbers: Sequence[int],
        rules: SampleRules,
        share: float,
        is_training: bool,
    ) -> None:
        """If `is_training`, other spans are masked in each epoch."""
        super().__init__(items, numbers, rules)
        self.share, self.is_training = share, is_training
        self._windows = [
            (n, w) for n, item in enumerate(self.items) for w in range(rules.count(item.samples))
        ]

    def __len__(self) -> int:
        return len(self._windows)

    def item(self, index: int) -> Item:
        """The item that a window belongs to."""
        return self.items[self._windows[index][0]]

    def own(self, index: int) -> np.ndarray:
        return self._cut(index, super().own)

    def given(self, index: int) -> np.ndarray:
        return self._cut(index, super().given)

    def _cut(self, index: int, read: Callable[[int], np.ndarray]) -> np.ndarray:
        segment, window = self._windows[index]
        windows = cut_windows(read(segment), self.rules.samples)
        return windows[window % len(windows)]  # noise has the length of another segment

    def sample(self, index: int, draws: Draws) -> dict[str, Any]:
        """See models/base.py: Split.

        In a noise control the encoder gets noise and must predict the recorded EEG.
        """
        target, item = self.own(index), self.item(index)
        rng = draws.rng() if self.is_training else np.random.default_rng([self.rules.seed, index])
        tokens = -(-len(target) // TOKEN_SAMPLES)
        return {
            "eeg": target,
            "seen": self.given(index) if self.rules.is_noise else target,
            "hidden": draw_spans(rng, tokens, self.share, SHORTEST, LONGEST),
            "recorded": np.isin(np.arange(CHANNELS), item.channels),
            "subject": item.subject,
        }


class TextSamples(SegmentSamples):
    """EEG with the sentence that was read; in evaluation, with noise, other EEG and candidates."""

    features: CachedFeatures | None = None
    """Cached ones of the inputs, numbered as in `seen`."""

    def __init__(
        self,
        items: Sequence[Item],
        numbers: Sequence[int],
        rules: SampleRules,
        texts: SentenceTexts,
        word_dropout: float,
    ) -> None:
        super().__init__(items, numbers, rules)
        self.texts, self.word_dropout = texts, word_dropout
        self.is_evaluated = any(item.group in texts.candidates for item in self.items)

    @property
    def inputs(self) -> int:
        """The number of encoder inputs: EEG, and in evaluation also noise for each."""
        return len(self) * (2 if self.is_evaluated else 1)

    def seen(self, number: int) -> np.ndarray:
        """Encoder input `number`: first the EEG of all samples, then the noise of all samples."""
        if number < len(self):
            return self.given(number)
        index = number - len(self)
        rng = np.random.default_rng([self.rules.seed, 2, index])
        return prepared(phase_randomised(self.given(index), rng), self.rules.most)

    def _input(self, number: int) -> np.ndarray | Features:
        if self.features is None:
            return self.seen(number)
        row = self.features[number]
        return Features(row["memory"], int(row["samples"]))

    def sample(self, index: int, draws: Draws) -> dict[str, Any]:
        item, texts, eeg = self.items[index], self.texts, self._input(index)
        tokens = texts.tokens[item.group]
        inputs = tokens[:-1]
        if self.word_dropout:
            visible = draws.rng().random(len(inputs)) >= self.word_dropout
            visible[0] = True
            inputs = np.where(visible, inputs, texts.tokenizer.hidden)
        sample: dict[str, Any] = {
            "eeg": eeg,
            "inputs": inputs,
            "labels": tokens[1:],
            "sentence": item.group,
            "subject": item.subject,
        }
        if item.group in texts.candidates:
            sample |= {
                "compared": (eeg, *map(self._input, (len(self) + index, int(self.random_others[index])))),
                "text": texts.text[item.group],
                "number": texts.number[item.group],
                "candidates": texts.candidates[item.group],
            }
        return sample
