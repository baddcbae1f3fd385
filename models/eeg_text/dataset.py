"""Samples of EEG segments, masked or with text, their batches, and the noise of a noise control."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor

from gearshift.models.base import Batch, CachedFeatures, Draws
from gearshift.models.common.data_files import files, identity
from gearshift.models.common.family import columns_of, padded
from gearshift.models.eeg_text.config import CHANNELS, TOKEN_SAMPLES
from gearshift.models.eeg_text.masked_series import draw_spans
from gearshift.models.eeg_text.recordings import Item
from gearshift.models.eeg_text.texts import SentenceTexts

LARGEST = 10.0
"""Standard deviations at which EEG is clipped."""
_FLAT_UV = 1e-6


def phase_randomised(eeg: ndarray, rng: Generator) -> ndarray:
    """Noise with the power spectrum of each channel of `eeg` [time, channel], float32.

    Each channel gets its own random phases: no temporal order and no correlation between channels
    is left. Source: Theiler et al., Testing for nonlinearity in time series: the
    method of surrogate data, 1992.
    """
    spectrum = np.abs(np.fft.rfft(eeg, axis=0)).astype(np.float32)
    phases = rng.uniform(
        0,
        2 * math.pi,
        spectrum.shape,
    ).astype(np.float32)
    phases[0] = 0
    if len(eeg) % 2 == 0:
        phases[-1] = 0  # the highest frequency has no phase
    noise = np.fft.irfft(
        spectrum * np.exp(1j * phases),
        n=len(eeg),
        axis=0,
    )
    return noise.astype(np.float32)


def random_others(groups: list[str], seed: int) -> ndarray:
    """For each item a random item of another group, if there are two groups; int64.

    Items are drawn uniformly, so that the drawn item reveals nothing about the original.
    """
    count = len(groups)
    rng = np.random.default_rng([seed, count])
    group = np.array(groups)
    can_differ = len(set(groups)) > 1
    chosen = np.arange(count)
    is_open = np.full(count, True)
    while is_open.any():
        chosen[is_open] = rng.integers(count, size=int(is_open.sum()))
        is_open = (group[chosen] == group) & can_differ
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
        """The windows of a segment: the fewest."""
        return max(1, -(-min(samples, self.most) // self.samples))

    def cut(self, eeg: ndarray) -> list[ndarray]:
        """The windows of `eeg` [time, channel], of nearly equal length.

        `samples` and all starts are multiples of TOKEN_SAMPLES: windows have the tokens of `eeg`.
        """
        count = self.count(len(eeg))
        starts = np.arange(1, count) * num_tokens(len(eeg)) // count * TOKEN_SAMPLES
        return np.split(eeg, starts)


def num_tokens(samples: int) -> int:
    """The tokens of a number of samples; the last one may be incomplete."""
    return -(-samples // TOKEN_SAMPLES)


def standardize(eeg: ndarray, samples: int) -> ndarray:
    """The center of `eeg` [time, channel], each channel with mean 0 and deviation 1, clipped.

    A flat channel is 0.
    """
    start = max(0, (len(eeg) - samples) // 2)
    cut = eeg[start : start + samples]
    mean = cut.mean(axis=0, dtype=np.float64)
    deviation = cut.std(axis=0, dtype=np.float64)
    scaled = (cut - mean) / np.where(
        deviation > _FLAT_UV,
        deviation,
        np.inf,
    )
    return np.clip(
        scaled,
        -LARGEST,
        LARGEST,
    ).astype(np.float32)


@dataclass
class SegmentSamples:
    """EEG segments of the items of one split, by index."""

    every: Sequence[Item]
    """The items of all splits."""
    numbers: Sequence[int]
    """Those of this split."""
    rules: SampleRules

    def __post_init__(self) -> None:
        self.items = [self.every[number] for number in self.numbers]
        groups = [item.group for item in self.items]
        self.random_others = random_others(groups, self.rules.seed)
        self._last = -1
        """The item whose EEG is kept."""

    def __len__(self) -> int:
        return len(self.items)

    def recorded_eeg(self, index: int) -> ndarray:
        """The recorded EEG of a segment; the last one is kept, for its next window."""
        number = self.numbers[index]
        if number != self._last:
            self._eeg = standardize(self.items[index].load(), self.rules.most)
            self._last = number
        return self._eeg

    def input_eeg(self, index: int) -> ndarray:
        """The EEG of a sample; in a noise control, noise with the spectrum of another segment.

        Not of the same segment: its spectrum and length could reveal the sentence.
        """
        if not self.rules.is_noise:
            return self.recorded_eeg(index)
        other = int(self.random_others[index])
        return self.noise(self.recorded_eeg(other), 1, self.numbers[other])

    def noise(self, eeg: ndarray, *seeds: int) -> ndarray:
        """Noise with the spectrum of `eeg`; the same for the same `seeds`."""
        rng = np.random.default_rng([self.rules.seed, *seeds])
        return standardize(phase_randomised(eeg, rng), self.rules.most)


@dataclass
class MaskedSamples(SegmentSamples):
    """Windows of EEG with masked spans, by index: all windows of all segments."""

    share: float
    is_training: bool
    """Whether each epoch masks other spans."""

    def __post_init__(self) -> None:
        counts = [self.rules.count(self.every[number].samples) for number in self.numbers]
        self._windows = list(chain.from_iterable(map(range, counts)))
        """The window of each sample in its segment."""
        self.numbers = np.repeat(self.numbers, counts).tolist()
        super().__post_init__()

    def input_eeg(self, index: int) -> ndarray:
        return self._cut(super().input_eeg(index), index)

    def _cut(self, eeg: ndarray, index: int) -> ndarray:
        windows = self.rules.cut(eeg)
        return windows[self._windows[index] % len(windows)]  # noise is of another segment

    def sample(self, index: int, draws: Draws) -> dict[str, Any]:
        """See models/base.py: Split.

        In a noise control the encoder gets noise and must predict the recorded EEG.
        """
        item = self.items[index]
        target = self._cut(self.recorded_eeg(index), index)
        # In evaluation the same spans are masked each time.
        rng = np.random.default_rng([self.rules.seed, index])
        if self.is_training:
            rng = draws.rng()
        return {
            "eeg": target,
            "seen": self.input_eeg(index),
            "hidden": draw_spans(rng, num_tokens(len(target)), self.share),
            "recorded": np.isin(np.arange(CHANNELS), item.channels),
            "subject": item.subject,
        }


@dataclass
class TextSamples(SegmentSamples):
    """EEG with the sentence that was read; in evaluation, with noise, other EEG and candidates."""

    texts: SentenceTexts
    word_dropout: float
    features: CachedFeatures | None = None
    """Cached ones of the inputs, numbered as in `encoder_input`."""

    def encoder_input(self, number: int) -> ndarray:
        """Encoder input `number`: first the EEG of all samples, then the noise of all samples."""
        if number < len(self):
            return self.input_eeg(number)
        index = number - len(self)
        return self.noise(self.input_eeg(index), 2, index)

    def _input(self, number: int) -> ndarray | Mapping[str, ndarray]:
        return self.encoder_input(number) if self.features is None else self.features[number]

    def sample(
        self,
        index: int,
        draws: Draws,
    ) -> dict[str, Any]:
        texts = self.texts
        sentence = self.items[index].group
        tokens = texts.tokens[sentence]
        inputs = tokens[:-1]
        if self.word_dropout:
            visible = draws.rng().random(len(inputs)) >= self.word_dropout
            visible[0] = True  # the start token
            inputs = np.where(
                visible,
                inputs,
                texts.tokenizer.hidden,
            )
        eeg = self._input(index)
        sample: dict[str, Any] = {
            "eeg": eeg,
            "inputs": inputs,
            "labels": tokens[1:],
            "sentence": sentence,
            "subject": self.items[index].subject,
        }
        if sentence in texts.candidates:
            noise = self._input(len(self) + index)
            other = self._input(int(self.random_others[index]))
            sample |= {
                "compared": (eeg, noise, other),
                "text": texts.text[sentence],
                "number": texts.number[sentence],
                "candidates": texts.candidates[sentence],
            }
        return sample


IGNORE = -100
"""The label that the loss ignores."""


def _first(lengths: Iterable[int], samples: int) -> Tensor:
    """A mask [batch, time], bool: True for as many first samples."""
    return torch.arange(samples) < torch.tensor([*lengths])[:, None]


def encoder_inputs(
    inputs: Sequence[Any],
    rules: SampleRules,
    name: str = "eeg",
) -> dict[str, Any]:
    """The inputs of the encoder `name`: EEG or cached features, and valid samples.

    See `collate_text`. `inputs`: arrays [time, 105], or cached rows of EegTextTask.encode. A
    segment of n windows has the mean of n consecutive tokens as one token, so that segments of any
    length have as many tokens as a window. With one window nothing is pooled.
    """
    samples = rules.samples
    if isinstance(inputs[0], Mapping):
        features = columns_of(inputs)
        return {
            f"{name}_memory": torch.from_numpy(np.stack(features["memory"])),
            f"{name}_mask": _first(map(int, features["samples"]), samples),
        }
    if rules.windows == 1:
        return _padded(inputs, samples, name)
    size = samples // TOKEN_SAMPLES
    pool = np.full((len(inputs), size, rules.windows), -1)
    every: list[ndarray] = []
    lengths = []
    for of_segment, eeg in zip(pool, inputs, strict=True):
        windows = rules.cut(eeg)
        # Numbered over all windows of the batch.
        tokens = np.concatenate(
            [
                number * size + np.arange(num_tokens(len(window)))
                for number, window in enumerate(windows, start=len(every))
            ]
        )
        # A row is one token of the segment: as many consecutive tokens as there are windows.
        rows = -(-len(tokens) // len(windows))
        of_segment[:rows, : len(windows)].flat[: len(tokens)] = tokens
        lengths.append(min(len(eeg), rows * TOKEN_SAMPLES))
        every += windows
    return {
        name: padded(every, length=samples),
        f"{name}_windows": _first(map(len, every), samples),
        f"{name}_pool": torch.from_numpy(pool),
        f"{name}_mask": _first(lengths, samples),
    }


def _padded(
    arrays: Sequence[ndarray],
    samples: int,
    name: str,
) -> dict[str, Any]:
    return {
        name: padded(arrays, length=samples),
        f"{name}_mask": _first(map(len, arrays), samples),
    }


def collate_masked(samples: Sequence[dict[str, Any]], length: int) -> Batch:
    """eeg, the target, and seen, what the encoder gets, each with a mask of valid samples;
    mask_target [batch, time / 4], recorded [batch, 105], units: masked values.
    """
    columns = columns_of(samples)
    batch = {
        "meta": {"subject": columns["subject"]},
        **_padded(
            columns["eeg"],
            length,
            "eeg",
        ),
        **_padded(
            columns["seen"],
            length,
            "seen",
        ),
        "mask_target": padded(columns["hidden"], length=length // TOKEN_SAMPLES),
        "recorded": torch.from_numpy(np.stack(columns["recorded"])),
    }
    batch["units"] = int(masked_values(batch).sum())
    return batch


def masked_values(batch: Batch) -> Tensor:
    """The values to predict: masked, valid and recorded; [batch, time, 105], bool."""
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1) & batch["eeg_mask"]
    return hidden[:, :, None] & batch["recorded"][:, None, :]


def collate_text(
    samples: Sequence[dict[str, Any]],
    rules: SampleRules,
    pad: int,
) -> Batch:
    """eeg, eeg_mask, text_ids and labels [batch, text], units: labels.

    If segments may have several windows: eeg [window, time, 105] of all segments one after the
    other, and eeg_windows [window, time], their valid samples; eeg_pool [batch, time / 4, windows],
    for each token of a segment the numbers of the window tokens it is the mean of, or -1; eeg_mask
    [batch, time], in the time of these means.

    With cached features, eeg_memory [batch, time / 4, width] instead of eeg. In evaluation also:
    compared, the EEG of all, then noise of all, then other EEG, as eeg; candidates [batch,
    candidate, text]; number [batch], the index of the sentence; text, the sentences.
    """
    columns = columns_of(samples)
    batch = {
        **encoder_inputs(columns["eeg"], rules),
        "text_ids": padded(columns["inputs"], pad),
        "labels": padded(columns["labels"], IGNORE),
        "units": sum(map(len, columns["labels"])),
        "meta": {name: columns[name] for name in ("sentence", "subject")},
    }
    if "candidates" in columns:
        # The EEG of all samples, then the noise of all, then the other EEG.
        compared = chain.from_iterable(zip(*columns["compared"], strict=True))
        batch |= {
            **encoder_inputs(
                list(compared),
                rules,
                "compared",
            ),
            "candidates": torch.from_numpy(np.stack(columns["candidates"])),
            "number": torch.tensor(columns["number"]),
            "text": columns["text"],
        }
    return batch


class TextInputs:
    """See models/base.py: EncoderInputs."""

    def __init__(
        self,
        samples: TextSamples,
        path: str,
    ) -> None:
        """`path`: of the data. Reads the identities of files, not their contents."""
        self._samples = samples
        source = Path(path).expanduser()
        # Some formats store the samples in a file beside the one that is named: NAME.eeg.
        paths: Iterable[Path] = source.parent.glob(f"{escape(source.stem)}*")
        if source.is_dir():
            paths = files(source)
        items = [(item.where, item.group, item.samples) for item in samples.items]
        self.made_from = {
            "data": path,
            "files": sorted((file.as_posix(), *identity(file)) for file in paths if file.is_file()),
            "items": hashlib.sha256(repr((samples.numbers, items)).encode()).hexdigest(),
            "filter": 2,
            **vars(samples.rules),
        }

    def __len__(self) -> int:
        samples = self._samples
        # In evaluation also noise for each.
        is_evaluated = samples.items[0].group in samples.texts.candidates
        return (1 + is_evaluated) * len(samples)

    def batch(self, numbers: Sequence[int]) -> Batch:
        inputs = list(map(self._samples.encoder_input, numbers))
        return encoder_inputs(inputs, self._samples.rules)
