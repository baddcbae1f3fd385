"""Sentences, or features of an encoder, for EEG without texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import Module

from models.base import Batch, DataError, Prediction
from models.common import model_facts, subwords
from models.common.data_files import existing_path, unknown_format
from models.common.predictions import OPTION, DistinctNames, features_file, input_errors
from models.eeg_text import batches, formats
from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES, Size
from models.eeg_text.dataset import SampleRules, read_segment
from models.eeg_text.montage import SLOTS
from models.eeg_text.network import MaskedEeg, pooled
from models.eeg_text.pretrained_decoder import TextModel
from models.eeg_text.pretrained_tokenizer import FOLDER, PretrainedTokenizer
from models.eeg_text.preview import sentences
from models.eeg_text.readers import files
from models.eeg_text.readers.continuous import later_parts
from models.eeg_text.recordings import RATE_HZ, Item, ReadingOptions, Recordings
from models.eeg_text.texts import BartTokenizer, SentenceByteTokenizer, SentenceTokenizer

BATCH = 8
"""Segments of one forward pass."""
_SHOWN = 5
"""Names of missing channels in an error."""


@dataclass(frozen=True)
class TrainedOnEeg:
    """What the model was trained on, as far as predictions depend on it."""

    size: Size
    pretrained: TextModel | None
    """The structure of the pretrained text decoder."""
    steps: int
    """Tokens to generate: those of the longest training sentence."""
    is_bytes: bool
    """Whether tokens are bytes; otherwise the tokenizer is saved in the run folder."""
    channels: tuple[str, ...]
    """The channels of the montage that were recorded."""
    channel_map: Mapping[str, str] | None
    """The content of data.channels."""

    def save(self, folder: Path | None, tokenizer: SentenceTokenizer | None) -> None:
        """Write the facts and the tokenizer into the run folder. Writes the disk."""
        if isinstance(tokenizer, BartTokenizer):
            subwords.save_tokenizer(tokenizer.inner, folder)
        elif isinstance(tokenizer, PretrainedTokenizer):
            tokenizer.save(folder)
        model_facts.save(self, folder)

    def tokenizer(self, folder: Path) -> SentenceTokenizer:
        """The saved tokenizer. Reads the disk. Raises DataError."""
        if self.is_bytes:
            return SentenceByteTokenizer()
        if self.pretrained is not None:
            return PretrainedTokenizer(folder / FOLDER, self.pretrained)
        path = folder / subwords.TOKENIZER_FILE
        return BartTokenizer(subwords.load_tokenizer(path, str(path)), str(path))

    def check(self, recorded: np.ndarray, path: Path) -> None:
        """Raise DataError unless half of the channels in training are `recorded` [105]."""
        missing = [name for name in self.channels if not recorded[SLOTS.index(name)]]
        count = len(self.channels)
        if 2 * len(missing) > count:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            raise DataError(
                f"'{path.name}' has {count - len(missing)} of the {count} channels in training; "
                f"missing: {', '.join(missing[:_SHOWN])}{more}",
                where=OPTION,
                allowed="at least half of the channels in training, by their 10-10 or EGI names",
            )


def recorded_channels(recordings: Recordings) -> tuple[str, ...]:
    """The channels that were recorded in any item."""
    mask = np.zeros(CHANNELS, dtype=bool)
    for number in range(len(recordings.items)):
        mask |= recordings.source.recorded(number)
    return tuple(name for name, is_recorded in zip(SLOTS, mask, strict=True) if is_recorded)


class Writer(Protocol):
    """What makes a prediction of the items of a recording."""

    def write(self, recordings: Recordings, name: str, title: str) -> Prediction:
        """The prediction of all items; `name` is that of its files. Reads the disk.

        Raises DataError.
        """


@dataclass(frozen=True)
class SentenceWriter:
    """A trained model and what it needs to write sentences."""

    model: Module
    tokenizer: SentenceTokenizer
    steps: int
    """Tokens to generate."""
    rules: SampleRules
    device: torch.device

    def write(self, recordings: Recordings, name: str, title: str) -> Prediction:
        """The sentence of each item, as lines and as JSON with times."""
        rows = []
        for items, batch in _batches(recordings, self.rules):
            texts = sentences(self.model, batch, self.tokenizer, self.steps, self.device)
            rows += [_row(item, text) for item, text in zip(items, texts, strict=True)]
        recording = {"recording": title, "segments": rows}
        content = json.dumps(recording, indent=1, ensure_ascii=False).encode()
        lines = [title, *(f"  {row['segment']}: {row['text']}" for row in rows)]
        return Prediction(name, "\n".join(lines), {".json": content})


@dataclass(frozen=True)
class FeatureWriter:
    """A trained encoder without a text decoder."""

    model: Module
    rules: SampleRules
    device: torch.device

    @torch.no_grad()
    def write(self, recordings: Recordings, name: str, title: str) -> Prediction:
        """The features of each item: a token is 8 ms, or the mean of the windows of a segment."""
        assert isinstance(self.model, MaskedEeg)
        states, masks = [], []
        for _, batch in _batches(recordings, self.rules):
            placed = {key: x.to(self.device) for key, x in batch.items() if torch.is_tensor(x)}
            valid = placed["eeg_mask"]
            memory = self.model.encoder(placed["eeg"], placed.get("eeg_windows", valid))
            if "eeg_pool" in placed:
                memory = pooled(memory, placed["eeg_pool"])
            states.append(memory.float().cpu().numpy())
            masks.append(valid[:, ::TOKEN_SAMPLES].cpu().numpy())
        items = recordings.items
        more = {
            "start_s": np.array([nan if i.start_s is None else i.start_s for i in items]),
            "duration_s": np.array([item.samples / RATE_HZ for item in items]),
        }
        return features_file(
            name,
            title,
            [item.where for item in items],
            np.concatenate(states),
            np.concatenate(masks),
            more,
        )


def _batches(recordings: Recordings, rules: SampleRules) -> Iterator[tuple[Sequence[Item], Batch]]:
    """Batches of all items. Reads the disk; raises DataError."""
    items = recordings.items
    for at in range(0, len(items), BATCH):
        chunk = items[at : at + BATCH]
        eeg = [read_segment(recordings, at + row, rules.most) for row in range(len(chunk))]
        yield chunk, batches.eeg(eeg, rules)


def predict(
    writer: Writer, trained: TrainedOnEeg, path: Path, reading: ReadingOptions
) -> Iterator[Prediction]:
    """What `writer` makes of each recording of a file or folder.

    A segment is a row of the table beside a continuous recording, or else a window; or a sentence
    of ZuCo. Raises DataError.
    """
    names = DistinctNames()
    with input_errors():
        paths = _recordings(path)
    for file in paths:
        name = (file.relative_to(path) if file != path else Path(file.name)).with_suffix("")
        with input_errors():
            recordings = files.read(str(file), reading)
            for number in range(len(recordings.items)):
                trained.check(recordings.source.recorded(number), file)
            prediction = writer.write(recordings, names.of(name.as_posix()), name.as_posix())
        notes = [f"  note: {note}" for note in recordings.notes.get("notes", ())]
        yield replace(prediction, text="\n".join([prediction.text, *notes]))


def _recordings(path: Path) -> Sequence[Path]:
    """The recordings of a file or folder, without the later parts of split ones."""
    source = existing_path(str(path), "; ".join(formats.FORMATS))
    forms = {file: form for file in formats.candidates(source) if (form := formats.of_file(file))}
    if not forms:
        raise unknown_format(path, formats.FORMATS)
    later = later_parts(file for file, form in forms.items() if form == formats.FIF)
    return [file for file in forms if file.resolve() not in later]


def _row(item: Item, text: str) -> dict[str, Any]:
    return {
        "segment": item.where,
        "start_s": item.start_s,
        "duration_s": item.samples / RATE_HZ,
        "text": text,
    }
