"""Batches of samples, padded to one length, and the inputs of the frozen encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.base import Batch
from models.common.data_files import files, identity
from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES
from models.eeg_text.dataset import Features, SampleRules, TextSamples, cut_windows

IGNORE = -100
"""The label that the loss ignores."""


def eeg(recordings: Sequence[np.ndarray], rules: SampleRules) -> Batch:
    """The inputs of the encoder: eeg and eeg_mask, or with windows as in `text`."""
    return _input("eeg", recordings, rules)


def _input(name: str, given: Sequence[np.ndarray | Features], rules: SampleRules) -> dict[str, Any]:
    """EEG, or the cached features (`NAME_memory`), and the mask of valid samples."""
    if not isinstance(given[0], Features):
        if rules.windows > 1:
            return _windows(name, given, rules)  # type: ignore[arg-type]
        return dict(zip((name, f"{name}_mask"), _eeg(given, rules.samples), strict=True))  # type: ignore[arg-type]
    lengths = [features.samples for features in given]  # type: ignore[union-attr]
    memory = np.stack([features.memory for features in given])  # type: ignore[union-attr]
    return {
        f"{name}_memory": torch.from_numpy(memory),
        f"{name}_mask": _first(lengths, rules.samples),
    }


def _first(lengths: Sequence[int], samples: int) -> torch.Tensor:
    """A mask [batch, time], bool: True for as many first samples."""
    return torch.from_numpy(np.arange(samples) < np.array(lengths)[:, None])


def _windows(name: str, segments: Sequence[np.ndarray], rules: SampleRules) -> dict[str, Any]:
    """The windows of all `segments`, and how their tokens are pooled; see `text`.

    A segment of n windows has the mean of n consecutive tokens as one token, so that segments of
    any length have as many tokens as a window. With one window nothing is pooled.
    """
    cuts = [cut_windows(segment, rules.samples) for segment in segments]
    token_count = rules.samples // TOKEN_SAMPLES
    pool = np.full((len(segments), token_count, rules.windows), -1, dtype=np.int64)
    row, lengths = 0, []
    for segment_pool, windows in zip(pool, cuts, strict=True):
        starts = (row + np.arange(len(windows))) * token_count
        tokens = np.concatenate(
            [
                start + np.arange(-(-len(window) // TOKEN_SAMPLES))
                for start, window in zip(starts, windows, strict=True)
            ]
        )
        count = len(windows)
        pooled = -(-len(tokens) // count)
        missing = pooled * count - len(tokens)
        segment_pool[:pooled, :count] = np.pad(tokens, (0, missing), constant_values=-1).reshape(
            pooled, -1
        )
        lengths.append(min(sum(map(len, windows)), pooled * TOKEN_SAMPLES))
        row += count
    eeg, valid = _eeg([window for windows in cuts for window in windows], rules.samples)
    return {
        name: eeg,
        f"{name}_windows": valid,
        f"{name}_pool": torch.from_numpy(pool),
        f"{name}_mask": _first(lengths, rules.samples),
    }


def _eeg(recordings: Sequence[np.ndarray], samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """EEG [batch, time, 105] float32, and its mask of valid samples [batch, time] bool."""
    eeg = np.zeros((len(recordings), samples, CHANNELS), dtype=np.float32)
    valid = np.zeros((len(recordings), samples), dtype=bool)
    for row, recording in enumerate(recordings):
        eeg[row, : len(recording)] = recording
        valid[row, : len(recording)] = True
    return torch.from_numpy(eeg), torch.from_numpy(valid)


def _rows(arrays: Sequence[np.ndarray], fill: int) -> torch.Tensor:
    width = max(len(array) for array in arrays)
    rows = np.full((len(arrays), width), fill, dtype=np.int64)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(rows)


def masked(samples: Sequence[dict[str, Any]], length: int) -> Batch:
    """eeg, eeg_mask, mask_target [batch, time / 4], recorded [batch, 105], units: masked values.

    `seen`, with its mask, is the input of the encoder if that is not `eeg`.
    """
    eeg, valid = _eeg([s["eeg"] for s in samples], length)
    hidden = np.zeros((len(samples), length // TOKEN_SAMPLES), dtype=bool)
    for row, sample in zip(hidden, samples, strict=True):
        row[: len(sample["hidden"])] = sample["hidden"]
    target = torch.from_numpy(hidden)
    recorded = torch.from_numpy(np.stack([s["recorded"] for s in samples]))
    masked_samples = (target.repeat_interleave(TOKEN_SAMPLES, dim=1) & valid).sum(1)
    batch = {
        "eeg": eeg,
        "eeg_mask": valid,
        "mask_target": target,
        "recorded": recorded,
        "units": int((masked_samples * recorded.sum(1)).sum()),
        "meta": {"subject": [s["subject"] for s in samples]},
    }
    if "seen" in samples[0]:
        batch["seen"], batch["seen_mask"] = _eeg([s["seen"] for s in samples], length)
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
    labels = _rows([s["labels"] for s in samples], IGNORE)
    batch: dict[str, Any] = {
        **_input("eeg", [s["eeg"] for s in samples], rules),
        "text_ids": _rows([s["inputs"] for s in samples], pad),
        "labels": labels,
        "units": int((labels != IGNORE).sum()),
        "meta": {name: [s[name] for s in samples] for name in ("sentence", "subject")},
    }
    if "candidates" in samples[0]:
        for name in ("noise", "other"):
            batch |= _input(name, [s[name] for s in samples], rules)
        batch["candidates"] = torch.from_numpy(np.stack([s["candidates"] for s in samples]))
        batch["number"] = torch.tensor([s["number"] for s in samples])
        batch["text"] = [s["text"] for s in samples]
    return batch


_EMBEDDED = "embedded:"


class TextInputs:
    """See models/base.py: EncoderInputs."""

    def __init__(self, samples: TextSamples, path: str, control: str) -> None:
        """`path`: of the data. Reads the identities of files, not their contents."""
        self._samples = samples
        rules = samples.rules
        self.made_from = {
            "data": path,
            "files": [] if path.startswith(_EMBEDDED) else _stamps(Path(path).expanduser()),
            "items": _items(samples),
            "samples": rules.samples,
            "windows": rules.windows,
            "control": control,
            "seed": rules.seed,
        }

    def __len__(self) -> int:
        return self._samples.inputs

    def batch(self, numbers: Sequence[int]) -> Batch:
        return eeg([self._samples.seen(number) for number in numbers], self._samples.rules)


def _stamps(path: Path) -> list[tuple[str | int, ...]]:
    """Name and identity of each file, and of those beside a single one. Reads the disk."""
    # Some formats store the samples in a file beside the one that is named: NAME.eeg, NAME.fdt.
    single = not path.is_dir()
    paths = sorted(path.parent.glob(f"{escape(path.stem)}*")) if single else files(path)
    return [(file.as_posix(), *identity(file)) for file in paths if file.is_file()]


def _items(samples: TextSamples) -> str:
    """A hash of the items, in order."""
    digest = hashlib.sha256()
    for number in samples.numbers:
        item = samples.recordings.items[number]
        digest.update(repr((number, item.where, item.subject, item.group, item.samples)).encode())
    return digest.hexdigest()
