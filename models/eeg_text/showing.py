"""What is shown of a model, in reports and for files: `task` is the one of the family."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import Module

from gearshift.models.base import Batch, DataError, Picture, Prediction, Predictions
from gearshift.models.common.data_files import name_in
from gearshift.models.common.data_reports import listed
from gearshift.models.common.family import printable, spread_positions
from gearshift.models.common.predictions import (
    OPTION,
    DistinctNames,
    FixedDraws,
    features_file,
    few_samples,
    input_errors,
    passed_over,
    placed,
)
from gearshift.models.common.recordings import bids
from gearshift.models.common.traces import INK, MARK, TraceRow, draw_traces
from gearshift.models.eeg_text.config import TOKEN_SAMPLES
from gearshift.models.eeg_text.dataset import encoder_inputs, masked_values, standardize
from gearshift.models.eeg_text.metric import encode_inputs, generate, predict_masked
from gearshift.models.eeg_text.montage import SLOTS
from gearshift.models.eeg_text.network import pool_tokens
from gearshift.models.eeg_text.readers import files
from gearshift.models.eeg_text.recordings import RATE_HZ, Item, Recordings
from gearshift.models.eeg_text.texts import SentenceTokenizer

SHOWN = 3
BATCH = 8
"""Segments of one forward pass."""
ROWS = 10
HEIGHT = 40
"""Pixels of a row; six standard deviations fill it."""


@torch.no_grad()
def sentences(
    model: Module,
    batch: Batch,
    tokenizer: SentenceTokenizer,
    steps: int,
    name: str = "eeg",
) -> list[str]:
    """The sentences of at most `steps` tokens generated for the inputs `name` of a batch.

    Collective if the model is sharded.
    """
    memory, valid = encode_inputs(model, batch, name)
    tokens = generate(model, memory, valid, steps, tokenizer)
    return [printable(tokenizer.decode(row)) for row in tokens.tolist()]


def preview(task: Any, model: Module) -> str:
    """For a few samples, the sentence that was read and the generated one. Collective."""
    rows = text_predictions(task, model).rows
    return "\n".join(f"read       {read}\ngenerated  {text}" for _, read, text, _ in rows)


def text_predictions(task: Any, model: Module) -> Predictions:
    """Sentences generated for a few samples, and for noise beside them. Collective."""
    split = task.data("val")
    batch = placed(task.collate(few_samples(split, SHOWN)), task.context.device)
    # First those of EEG, then those of noise.
    generated = sentences(model, batch, task.tokenizer, task.texts.steps, "compared")
    read = list(map(printable, batch["text"]))
    rows = []
    shown = []
    for n, index in enumerate(spread_positions(len(split), SHOWN)):
        rows.append((split.items[index].where, read[n], generated[n], generated[len(read) + n]))
        shown.append(draw_eeg(split, index))
    return Predictions(("recording", "read", "generated", "from noise"), rows, shown)


def masked_predictions(task: Any, model: Module) -> Predictions:
    """Masked EEG predicted for a few samples. Collective."""
    split = task.data("val")
    metric = task.metric()
    rows = []
    shown = []
    for index in spread_positions(len(split), SHOWN):
        batch = placed(task.collate([split.sample(index, FixedDraws())]), task.context.device)
        scores = metric.result(metric.update(model, batch))
        cells = map(scores.get, ("val_masked_r2", "val_interpolation_r2"))
        rows.append((split.items[index].where, *cells))
        masked = torch.where(masked_values(batch), predict_masked(model, batch), torch.nan)
        shown.append(draw_eeg(split, index, masked[0].cpu()))
    return Predictions(("recording", "masked_r2", "interpolation_r2"), rows, shown)


def pictures(task: Any) -> list[Picture]:
    """A few training samples. May read from the disk."""
    split = task.data("train")
    return [draw_eeg(split, index) for index in spread_positions(len(split), SHOWN)]


def draw_eeg(
    split: Any,
    index: int,
    guess: Any = None,
) -> Picture:
    """EEG of a sample, in up to ROWS of the recorded channels.

    `guess` [time, 105] is drawn over it in red, except NaN.
    """
    item = split.items[index]
    eeg = split.input_eeg(index)
    rows = []
    for n in spread_positions(len(item.channels), ROWS):
        channel = item.channels[n]
        traces = [(eeg[:, channel], INK)]
        if guess is not None:
            traces.append((guess[: len(eeg), channel], MARK))
        rows.append(TraceRow(SLOTS[channel], traces))
    caption = f"{item.where}, reader {item.subject}: {item.group}"
    ticks = [(0.0, "0 s"), (0.97, f"{len(eeg) / RATE_HZ:.2f} s")]
    png = draw_traces(rows, ticks, HEIGHT, HEIGHT / 6, caption)
    return Picture(f"eeg_{index}", caption, png)


def predict(task: Any, model: Any, path: Path) -> Iterator[Prediction]:
    """What the task makes of each recording of a file or folder.

    A segment is a row of the table beside a continuous recording, or else a window; or a sentence
    of ZuCo. Raises DataError.
    """
    with input_errors():
        paths = files.first_parts(str(path))
    names = DistinctNames()
    trained = task.trained
    for file in paths:
        title = Path(name_in(path, file)).with_suffix("").as_posix()
        with input_errors():
            settings = task.data_settings
            recordings = files.read(str(file), settings, "predict", trained.channel_map)
            missing = {*trained.channels} - {*recordings.items[0].channels}
            count = len(trained.channels)
            if 2 * len(missing) > count:
                names_of_missing = [SLOTS[channel] for channel in sorted(missing)]
                raise DataError(
                    f"'{file.name}' has {count - len(missing)} of the {count} channels in "
                    f"training; missing: {listed(names_of_missing, 5)}",
                    where=OPTION,
                    allowed="at least half of the channels in training, by their 10-10 or EGI "
                    "names",
                )
            prediction = task.answer(model, recordings, title)
        notes = [f"  note: {note}" for note in recordings.facts.get("notes", ())]
        text = "\n".join([prediction.text, *notes])
        yield replace(prediction, name=names.of(title), text=text)
    # Tables of events were read with their recordings.
    events = filter(None, map(bids.events_path, paths))
    yield from passed_over(path, [*paths, *events])


def _batches(task: Any, items: Sequence[Item]) -> Iterator[Batch]:
    """The EEG of `items`, read as it is needed."""
    rules = task.rules
    for first in range(0, len(items), BATCH):
        segments = [standardize(item.load(), rules.most) for item in items[first : first + BATCH]]
        yield placed(encoder_inputs(segments, rules), task.context.device)


def sentences_file(
    task: Any,
    model: Module,
    recordings: Recordings,
    title: str,
) -> Prediction:
    """The sentence of each item: as lines, and as JSON with times."""
    texts: list[str] = []
    for batch in _batches(task, recordings.items):
        texts += sentences(model, batch, task.tokenizer, task.trained.steps)
    lines = [title]
    segments = []
    for item, text in zip(recordings.items, texts, strict=True):
        lines.append(f"  {item.where}: {text}")
        segment = {
            "segment": item.where,
            "start_s": item.start_s,
            "duration_s": item.samples / RATE_HZ,
            "text": text,
        }
        segments.append(segment)
    content = {"recording": title, "segments": segments}
    file = json.dumps(content, indent=1, ensure_ascii=False).encode()
    return Prediction(title, "\n".join(lines), {".json": file})


@torch.no_grad()
def features(
    task: Any,
    model: Any,
    recordings: Recordings,
    title: str,
) -> Prediction:
    """The features of each item: a token is 8 ms, or the mean of the windows of a segment."""
    items = recordings.items
    states = []
    masks = []
    for batch in _batches(task, items):
        memory = model.encoder(batch["eeg"], batch.get("eeg_windows", batch["eeg_mask"]))
        if "eeg_pool" in batch:
            memory = pool_tokens(memory, batch["eeg_pool"])
        states.append(memory.float().cpu().numpy())
        masks.append(batch["eeg_mask"][:, ::TOKEN_SAMPLES].cpu().numpy())
    return features_file(
        title,
        title,
        [item.where for item in items],
        np.concatenate(states),
        np.concatenate(masks),
        {
            "start_s": np.array([item.start_s for item in items], np.float64),  # NaN for None
            "duration_s": np.array([item.samples for item in items]) / RATE_HZ,
        },
    )
