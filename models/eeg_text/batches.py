"""Samples put together, padded to one length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.base import Batch
from models.common.data_files import files
from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES
from models.eeg_text.dataset import Encoded, TextSamples

IGNORE = -100
"""The label that is left out of the loss."""


def eeg(recordings: Sequence[np.ndarray], samples: int) -> Batch:
    """What the encoder is given: eeg and eeg_mask."""
    return dict(zip(("eeg", "eeg_mask"), _eeg(recordings, samples), strict=True))


def _input(name: str, given: Sequence[np.ndarray | Encoded], samples: int) -> dict[str, Any]:
    """Under `name` the EEG, or as its memory what the encoder made of it; and where it is valid."""
    if not isinstance(given[0], Encoded):
        return dict(zip((name, f"{name}_mask"), _eeg(given, samples), strict=True))  # type: ignore[arg-type]
    lengths = np.array([[one.samples] for one in given])  # type: ignore[union-attr]
    memory = np.stack([one.memory for one in given])  # type: ignore[union-attr]
    return {
        f"{name}_memory": torch.from_numpy(memory),
        f"{name}_mask": torch.from_numpy(np.arange(samples) < lengths),
    }


def _eeg(recordings: Sequence[np.ndarray], samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """EEG [batch, time, 105] float32, and where it is valid, [batch, time] bool."""
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
    """eeg, eeg_mask, mask_target [batch, time / 4], recorded [batch, 105], units: values to tell.

    `seen`, with its mask, is what the encoder is given where that is not `eeg`.
    """
    eeg, valid = _eeg([s["eeg"] for s in samples], length)
    hidden = np.zeros((len(samples), length // TOKEN_SAMPLES), dtype=bool)
    for row, sample in zip(hidden, samples, strict=True):
        row[: len(sample["hidden"])] = sample["hidden"]
    target = torch.from_numpy(hidden)
    recorded = torch.from_numpy(np.stack([s["recorded"] for s in samples]))
    told = (target.repeat_interleave(TOKEN_SAMPLES, dim=1) & valid).sum(1)
    batch = {
        "eeg": eeg,
        "eeg_mask": valid,
        "mask_target": target,
        "recorded": recorded,
        "units": int((told * recorded.sum(1)).sum()),
        "meta": {"subject": [s["subject"] for s in samples]},
    }
    if "seen" in samples[0]:
        batch["seen"], batch["seen_mask"] = _eeg([s["seen"] for s in samples], length)
    return batch


def text(samples: Sequence[dict[str, Any]], length: int, pad: int) -> Batch:
    """eeg, eeg_mask, text_ids and labels [batch, text], units: labels.

    In place of eeg eeg_memory [batch, time / 4, width], where the encoder made that before. Where
    samples are judged: noise and other, each with its mask or likewise; candidates
    [batch, candidate, text]; number [batch], which sentence it is; text, the sentences.
    """
    labels = _rows([s["labels"] for s in samples], IGNORE)
    batch: dict[str, Any] = {
        **_input("eeg", [s["eeg"] for s in samples], length),
        "text_ids": _rows([s["inputs"] for s in samples], pad),
        "labels": labels,
        "units": int((labels != IGNORE).sum()),
        "meta": {name: [s[name] for s in samples] for name in ("sentence", "subject")},
    }
    if "candidates" in samples[0]:
        for name in ("noise", "other"):
            batch |= _input(name, [s[name] for s in samples], length)
        batch["candidates"] = torch.from_numpy(np.stack([s["candidates"] for s in samples]))
        batch["number"] = torch.tensor([s["number"] for s in samples])
        batch["text"] = [s["text"] for s in samples]
    return batch


_EMBEDDED = "embedded:"


class TextInputs:
    """See models/base.py: EncoderInputs."""

    def __init__(self, samples: TextSamples, path: str, control: str) -> None:
        """`path`: of the data. Looks at files, not into them."""
        self._samples = samples
        rules = samples.rules
        self.made_from = {
            "data": path,
            "files": [] if path.startswith(_EMBEDDED) else _stamps(Path(path).expanduser()),
            "items": _items(samples),
            "samples": rules.samples,
            "control": control,
            "seed": rules.seed,
        }

    def __len__(self) -> int:
        return self._samples.inputs

    def batch(self, numbers: Sequence[int]) -> Batch:
        """eeg and eeg_mask."""
        seen = [self._samples.seen(number) for number in numbers]
        return eeg(seen, self._samples.rules.samples)


def _stamps(path: Path) -> list[list[str | int]]:
    """Name, bytes and time of change of each file. Touches disk, not their content."""
    stats = [(file, file.stat()) for file in files(path)]
    return [[file.as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _items(samples: TextSamples) -> str:
    """A digest of which recordings there are, in their order."""
    digest = hashlib.sha256()
    for number in samples.numbers:
        item = samples.recordings.items[number]
        digest.update(repr((number, item.where, item.subject, item.group, item.samples)).encode())
    return digest.hexdigest()
