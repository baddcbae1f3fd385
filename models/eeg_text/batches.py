"""Batches of samples, padded to one length, and the inputs of the frozen encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.base import Batch
from models.common.data_files import files, identity
from models.eeg_text.config import TOKEN_SAMPLES
from models.eeg_text.dataset import Features, SampleRules, TextSamples, cut_windows

IGNORE = -100
"""The label that the loss ignores."""


def _padded(arrays: Sequence[np.ndarray], length: int, fill: float = 0) -> Tensor:
    """`arrays`, of any lengths, as one tensor [batch, length, ...]."""
    shape = (len(arrays), length, *arrays[0].shape[1:])
    rows = np.full(shape, fill, dtype=arrays[0].dtype)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(rows)


def _first(lengths: Sequence[int], samples: int) -> Tensor:
    """A mask [batch, time], bool: True for as many first samples."""
    return torch.from_numpy(np.arange(samples) < np.array(lengths)[:, None])


def eeg(given: Sequence[Any], rules: SampleRules, name: str = "eeg") -> dict[str, Any]:
    """The inputs of the encoder `name`: EEG or cached features, and valid samples; see `text`.

    `given`: arrays [time, 105] or Features. A segment of n windows has the mean of n consecutive
    tokens as one token, so that segments of any length have as many tokens as a window. With one
    window nothing is pooled.
    """
    samples = rules.samples
    if isinstance(given[0], Features):
        memory = torch.from_numpy(np.stack([features.memory for features in given]))
        lengths = [features.samples for features in given]
        return {f"{name}_memory": memory, f"{name}_mask": _first(lengths, samples)}
    if rules.windows == 1:
        lengths = list(map(len, given))
        return {name: _padded(given, samples), f"{name}_mask": _first(lengths, samples)}
    cuts = [cut_windows(segment, samples) for segment in given]
    token_count = samples // TOKEN_SAMPLES
    pool = np.full((len(given), token_count, rules.windows), -1, dtype=np.int64)
    row, lengths = 0, []
    for segment_pool, windows in zip(pool, cuts, strict=True):
        counts = [-(-len(window) // TOKEN_SAMPLES) for window in windows]
        starts = [(row + number) * token_count for number in range(len(windows))]
        tokens = np.concatenate([s + np.arange(n) for s, n in zip(starts, counts, strict=True)])
        count = len(windows)
        pooled = -(-len(tokens) // count)
        tokens = np.pad(tokens, (0, pooled * count - len(tokens)), constant_values=-1)
        segment_pool[:pooled, :count] = tokens.reshape(pooled, -1)
        lengths.append(min(sum(map(len, windows)), pooled * TOKEN_SAMPLES))
        row += count
    every = [window for windows in cuts for window in windows]
    return {
        name: _padded(every, samples),
        f"{name}_windows": _first(list(map(len, every)), samples),
        f"{name}_pool": torch.from_numpy(pool),
        f"{name}_mask": _first(lengths, samples),
    }


def masked(samples: Sequence[dict[str, Any]], length: int) -> Batch:
    """eeg, eeg_mask, mask_target [batch, time / 4], recorded [batch, 105], units: masked values.

    `seen`, with its mask, is the input of the encoder if that is not `eeg`.
    """
    valid = _first([len(s["eeg"]) for s in samples], length)
    target = _padded([s["hidden"] for s in samples], length // TOKEN_SAMPLES)
    recorded = torch.from_numpy(np.stack([s["recorded"] for s in samples]))
    masked_samples = (target.repeat_interleave(TOKEN_SAMPLES, dim=1) & valid).sum(1)
    batch = {
        "eeg": _padded([s["eeg"] for s in samples], length),
        "eeg_mask": valid,
        "mask_target": target,
        "recorded": recorded,
        "units": int((masked_samples * recorded.sum(1)).sum()),
        "meta": {"subject": [s["subject"] for s in samples]},
    }
    if "seen" in samples[0]:
        batch["seen"] = _padded([s["seen"] for s in samples], length)
        batch["seen_mask"] = _first([len(s["seen"]) for s in samples], length)
    return batch


def text(samples: Sequence[dict[str, Any]], rules: SampleRules, pad: int) -> Batch:
    """eeg, eeg_mask, text_ids and labels [batch, text], units: labels.

    If segments may have several windows: eeg [window, time, 105] of all segments one after the
    other, and eeg_windows [window, time], their valid samples; eeg_pool [batch, time / 4, windows],
    for each token of a segment the numbers of the window tokens it is the mean of, or -1; eeg_mask
    [batch, time], in the time of these means.

    With cached features, eeg_memory [batch, time / 4, width] instead of eeg. In evaluation also:
    noise and other, with their masks or features; candidates [batch, candidate, text]; number
    [batch], the index of the sentence; text, the sentences.
    """
    longest = max(len(s["labels"]) for s in samples)
    labels = _padded([s["labels"] for s in samples], longest, IGNORE)
    batch: dict[str, Any] = {
        **eeg([s["eeg"] for s in samples], rules),
        "text_ids": _padded([s["inputs"] for s in samples], longest, pad),
        "labels": labels,
        "units": int((labels != IGNORE).sum()),
        "meta": {name: [s[name] for s in samples] for name in ("sentence", "subject")},
    }
    if "candidates" in samples[0]:
        for name in ("noise", "other"):
            batch |= eeg([s[name] for s in samples], rules, name)
        batch["candidates"] = torch.from_numpy(np.stack([s["candidates"] for s in samples]))
        batch["number"] = torch.tensor([s["number"] for s in samples])
        batch["text"] = [s["text"] for s in samples]
    return batch


class TextInputs:
    """See models/base.py: EncoderInputs."""

    def __init__(self, samples: TextSamples, path: str, control: str) -> None:
        """`path`: of the data. Reads the identities of files, not their contents."""
        self._samples = samples
        source, stamps = Path(path).expanduser(), list[tuple[str | int, ...]]()
        if not path.startswith("embedded:"):
            # Some formats store the samples in a file beside the one that is named: NAME.eeg.
            beside = source.parent.glob(f"{escape(source.stem)}*")
            paths = files(source) if source.is_dir() else sorted(beside)
            stamps = [(file.as_posix(), *identity(file)) for file in paths if file.is_file()]
        digest = hashlib.sha256()
        for number, i in zip(samples.numbers, samples.items, strict=True):
            digest.update(repr((number, i.where, i.subject, i.group, i.samples)).encode())
        rules = samples.rules
        self.made_from = {
            "data": path,
            "files": stamps,
            "items": digest.hexdigest(),
            "samples": rules.samples,
            "windows": rules.windows,
            "control": control,
            "seed": rules.seed,
        }

    def __len__(self) -> int:
        return self._samples.inputs

    def batch(self, numbers: Sequence[int]) -> Batch:
        return eeg([self._samples.seen(number) for number in numbers], self._samples.rules)
