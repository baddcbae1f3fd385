"""Sentences, or features of an encoder, for EEG without texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import numpy as np
import torch
from torch.nn import Module

from models.base import Batch, DataError, Prediction
from models.common import model_facts, subwords
from models.common.data_files import existing_path, listed, unknown_format
from models.common.predictions import OPTION, DistinctNames, features_file, input_errors, passed_over, placed
from models.common.recordings import bids
from models.eeg_text import batches, formats
from models.eeg_text.config import TOKEN_SAMPLES, Size
from models.eeg_text.dataset import SampleRules, read_segment
from models.eeg_text.montage import SLOTS
from models.eeg_text.network import MaskedEeg, pooled
from models.eeg_text.preview import sentences
from models.eeg_text.readers import files
from models.eeg_text.readers.continuous import first_parts
from models.eeg_text.recordings import RATE_HZ, Item, ReadingOptions, Recordings
from models.eeg_text.texts import BartTokenizer, SentenceByteTokenizer, SentenceTokenizer

BATCH = 8
"""Segments of one forward pass."""


@dataclass(frozen=True)
class TrainedOnEeg:
    """What the model was trained on, as far as predictions depend on it."""

    size: Size
    is_pretrained: bool
    """Whether the text decoder began as that of a BART."""
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
        model_facts.save(self, folder)

    def tokenizer(self, folder: Path) -> SentenceTokenizer:
        """The saved tokenizer. Reads the disk. Raises DataError."""
        if self.is_bytes:
            return SentenceByteTokenizer()
        path = folder / subwords.TOKENIZER_FILE
        inner = subwords.load_tokenizer(path, str(path))
        return BartTokenizer(inner, str(path), self.is_pretrained)

    def check(self, item: Item, path: Path) -> None:
        """Raise DataError unless `item` has half of the channels in training."""
        missing = [name for name in self.channels if SLOTS.index(name) not in item.channels]
        count = len(self.channels)
        if 2 * len(missing) > count:
            raise DataError(
                f"'{path.name}' has {count - len(missing)} of the {count} channels in training; "
                f"missing: {listed(missing, 5)}",
                where=OPTION,
                allowed="at least half of the channels in training, by their 10-10 or EGI names",
            )


def predict(
    model: Module,
    trained: TrainedOnEeg,
    path: Path,
    reading: ReadingOptions,
    rules: SampleRules,
    tokenizer: SentenceTokenizer | None,
    device: torch.device,
) -> Iterator[Prediction]:
    """The sentences of each recording of a file or folder; without a `tokenizer`, its features.

    A segment is a row of the table beside a continuous recording, or else a window; or a sentence
    of ZuCo. Raises DataError.
    """
    names = DistinctNames()
    with input_errors():
        source = existing_path(str(path), "; ".join(formats.FORMATS))
        paths = list(first_parts(source))
        if not paths:
            raise unknown_format(path, formats.FORMATS)
    for file in paths:
        name = file.relative_to(path) if file != path else Path(file.name)
        title = name.with_suffix("").as_posix()
        with input_errors():
            recordings = files.read(str(file), reading)
            for item in recordings.items:
                trained.check(item, file)
            given = _batches(recordings, rules, device)
            if tokenizer is None:
                prediction = _features(model, given, recordings, title)
            else:
                texts = [
                    text for b in given for text in sentences(model, b, tokenizer, trained.steps, device)
                ]
                prediction = _sentences(texts, recordings, title)
        notes = [f"  note: {note}" for note in recordings.notes.get("notes", ())]
        yield replace(prediction, name=names.of(title), text="\n".join([prediction.text, *notes]))
    inputs = [file for file in formats.candidates(source) if formats.of_file(file)]
    yield from passed_over(source, [*inputs, *filter(None, map(bids.events_path, inputs))])


def _batches(recordings: Recordings, rules: SampleRules, device: torch.device) -> Iterator[Batch]:
    """Batches of all items. Reads the disk; raises DataError."""
    for at in range(0, len(recordings.items), BATCH):
        chunk = recordings.items[at : at + BATCH]
        yield placed(batches.eeg([read_segment(item, rules.most) for item in chunk], rules), device)


def _sentences(texts: Sequence[str], recordings: Recordings, title: str) -> Prediction:
    """The sentence of each item: as lines, and as JSON with times."""
    rows = []
    for item, text in zip(recordings.items, texts, strict=True):
        times = {"start_s": item.start_s, "duration_s": item.samples / RATE_HZ}
        rows.append({"segment": item.where, **times, "text": text})
    content = json.dumps({"recording": title, "segments": rows}, indent=1, ensure_ascii=False)
    lines = [title, *(f"  {row['segment']}: {row['text']}" for row in rows)]
    return Prediction(title, "\n".join(lines), {".json": content.encode()})


@torch.no_grad()
def _features(model: Module, given: Iterator[Batch], recordings: Recordings, title: str) -> Prediction:
    """The features of each item: a token is 8 ms, or the mean of the windows of a segment."""
    assert isinstance(model, MaskedEeg)
    states, masks = [], []
    for batch in given:
        memory = model.encoder(batch["eeg"], batch.get("eeg_windows", batch["eeg_mask"]))
        if "eeg_pool" in batch:
            memory = pooled(memory, batch["eeg_pool"])
        states.append(memory.float().cpu().numpy())
        masks.append(batch["eeg_mask"][:, ::TOKEN_SAMPLES].cpu().numpy())
    items = recordings.items
    more = {
        "start_s": np.array([nan if i.start_s is None else i.start_s for i in items]),
        "duration_s": np.array([item.samples / RATE_HZ for item in items]),
    }
    names, valid = [item.where for item in items], np.concatenate(masks)
    return features_file(title, title, names, np.concatenate(states), valid, more)
