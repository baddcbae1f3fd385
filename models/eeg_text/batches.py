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
from models.common.family import padded
from models.eeg_text.config import TOKEN_SAMPLES
from models.eeg_text.dataset import Features, SampleRules, TextSamples, cut_windows

IGNORE = -100
"""The label that the loss ignores."""


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
        mask = _first(list(map(len, given)), samples)
        return {name: padded(given, length=samples), f"{name}_mask": mask}
    pool = np.full((len(given), samples // TOKEN_SAMPLES, rules.windows), -1, dtype=np.int64)
    every, lengths = list[np.ndarray](), list[int]()
    for segment_pool, windows in zip(pool, (cut_windows(s, samples) for s in given), strict=True):
        first, count = len(every) * pool.shape[1], len(windows)
        tokens = np.concatenate(
            [
                first + n * pool.shape[1] + np.arange(-(-len(window) // TOKEN_SAMPLES))
                for n, window in enumerate(windows)
            ]
        )
        rows = -(-len(tokens) // count)
        tokens = np.pad(tokens, (0, rows * count - len(tokens)), constant_values=-1)
        segment_pool[:rows, :count] = tokens.reshape(rows, count)
        lengths.append(min(sum(map(len, windows)), rows * TOKEN_SAMPLES))
        every += windows
    return {
        name: padded(every, length=samples),
        f"{name}_windows": _first(list(map(len, every)), samples),
        f"{name}_pool": torch.from_numpy(pool),
        f"{name}_mask": _first(lengths, samples),
    }


def masked(samples: Sequence[dict[str, Any]], length: int) -> Batch:
    """eeg, the target, and seen, what the encoder gets, each with a mask of valid samples;
    mask_target [batch, time / 4], recorded [batch, 105], units: masked values.
    """
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    batch: dict[str, Any] = {"meta": {"subject": columns["subject"]}}
    for name in ("eeg", "seen"):
        batch[name] = padded(columns[name], length=length)
        batch[f"{name}_mask"] = _first(list(map(len, columns[name])), length)
    batch["mask_target"] = padded(columns["hidden"], length=length // TOKEN_SAMPLES)
    batch["recorded"] = torch.from_numpy(np.stack(columns["recorded"]))
    batch["units"] = int(masked_values(batch).sum())
    return batch


def masked_values(batch: Batch) -> Tensor:
    """The values to predict: masked, valid and recorded; [batch, time, 105], bool."""
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1) & batch["eeg_mask"]
    return hidden[:, :, None] & batch["recorded"][:, None, :]


def text(samples: Sequence[dict[str, Any]], rules: SampleRules, pad: int) -> Batch:
    """eeg, eeg_mask, text_ids and labels [batch, text], units: labels.

    If segments may have several windows: eeg [window, time, 105] of all segments one after the
    other, and eeg_windows [window, time], their valid samples; eeg_pool [batch, time / 4, windows],
    for each token of a segment the numbers of the window tokens it is the mean of, or -1; eeg_mask
    [batch, time], in the time of these means.

    With cached features, eeg_memory [batch, time / 4, width] instead of eeg. In evaluation also:
    compared, the EEG of all, then noise of all, then other EEG, as eeg; candidates [batch,
    candidate, text]; number [batch], the index of the sentence; text, the sentences.
    """
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    batch: dict[str, Any] = {
        **eeg(columns["eeg"], rules),
        "text_ids": padded(columns["inputs"], pad),
        "labels": padded(columns["labels"], IGNORE),
        "units": sum(map(len, columns["labels"])),
        "meta": {name: columns[name] for name in ("sentence", "subject")},
    }
    if "candidates" in columns:
        batch |= eeg(
            [given for kind in zip(*columns["compared"], strict=True) for given in kind], rules, "compared"
        )
        batch["candidates"] = torch.from_numpy(np.stack(columns["candidates"]))
        batch["number"], batch["text"] = torch.tensor(columns["number"]), columns["text"]
    return batch


class TextInputs:
    """See models/base.py: EncoderInputs."""

    def __init__(self, samples: TextSamples, path: str) -> None:
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
        items = {"data": path, "files": stamps, "items": digest.hexdigest()}
        self.made_from = items | {"filter": 2} | vars(samples.rules)

    def __len__(self) -> int:
        return self._samples.inputs

    def batch(self, numbers: Sequence[int]) -> Batch:
        return eeg([self._samples.seen(number) for number in numbers], self._samples.rules)
