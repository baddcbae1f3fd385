"""What is shown of a model, in reports and for files: `task` is the one of the family."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import Module

from gearshift.models.base import Batch, Picture, Prediction, Predictions
from gearshift.models.common.data_files import existing_path, unknown_format
from gearshift.models.common.family import evaluating, printable, spread_positions
from gearshift.models.common.predictions import (
    DistinctNames,
    features_file,
    few_samples,
    input_errors,
    passed_over,
    placed,
)
from gearshift.models.common.recordings import bids
from gearshift.models.common.traces import MARK, TraceRow, draw_traces
from gearshift.models.eeg_text import formats
from gearshift.models.eeg_text.config import TOKEN_SAMPLES
from gearshift.models.eeg_text.dataset import SampleRules, encoder_inputs, masked_values, prepared
from gearshift.models.eeg_text.masked_series import masked_scores
from gearshift.models.eeg_text.metric import (
    encode_inputs,
    generate,
    masked_sums,
    predict_masked,
    rouge1,
    word_errors,
)
from gearshift.models.eeg_text.montage import INDICES, SLOTS
from gearshift.models.eeg_text.network import pooled
from gearshift.models.eeg_text.readers import files
from gearshift.models.eeg_text.recordings import RATE_HZ, Item, Recordings, words
from gearshift.models.eeg_text.texts import SentenceTokenizer

SHOWN = 3
BATCH = 8
"""Segments of one forward pass."""
ROW = 26
"""Height of a row in pixels; six standard deviations fill it."""
PER_REGION = 2


@torch.no_grad()
def sentences(
    model: Module, batch: Batch, tokenizer: SentenceTokenizer, steps: int, name: str = "eeg"
) -> list[str]:
    """The sentences of at most `steps` tokens generated for the inputs `name` of a batch.

    Collective if the model is sharded.
    """
    memory, valid = encode_inputs(model, batch, name)
    tokens = generate(model, memory, valid, steps, tokenizer).cpu().tolist()
    return [printable(tokenizer.decode(row)) for row in tokens]


def _few(task: Any) -> tuple[Batch, list[Item], list[np.ndarray]]:
    """A few validation samples, with their items and EEG."""
    split: Any = task.data("val")
    positions = spread_positions(len(split), SHOWN)
    batch = placed(task.collate(few_samples(split, SHOWN)), task.context.device)
    return batch, list(map(split.item, positions)), list(map(split.given, positions))


def preview(task: Any, model: Module) -> str:
    """For a few samples, the sentence that was read and the generated one. Collective."""
    batch = _few(task)[0]
    with evaluating(model):
        generated = sentences(model, batch, task.tokenizer, task.texts.steps)
    pairs = zip(batch["text"], generated, strict=True)
    return "\n".join(f"read       {printable(read)}\ngenerated  {text}" for read, text in pairs)


def text_predictions(task: Any, model: Module) -> Predictions:
    """Sentences generated for a few samples, and for noise beside them. Collective."""
    batch, items, given = _few(task)
    texts = sentences(model, batch, task.tokenizer, task.texts.steps, "compared")
    rows = []
    pictures = []
    for n, (item, eeg, read) in enumerate(zip(items, given, batch["text"], strict=True)):
        hypothesis = words(texts[n])
        wanted = words(read)
        scores = rouge1(hypothesis, wanted), word_errors(hypothesis, wanted) / max(1, len(wanted))
        rows.append((item.where, printable(read), texts[n], texts[len(items) + n], *scores))
        title = f"read:      {printable(read)}\ngenerated: {texts[n]}"
        pictures.append(
            draw_eeg(f"eeg_{n + 1}", item, eeg, title, "EEG, read and generated sentence")
        )
    columns = ("recording", "read", "generated", "from noise", "rouge1", "word error rate")
    return Predictions(columns, rows, pictures)


def masked_predictions(task: Any, model: Module) -> Predictions:
    """Masked EEG predicted for a few samples. Collective."""
    batch, items, _ = _few(task)
    guess = predict_masked(model, batch)
    shown = torch.where(masked_values(batch), guess, torch.nan).cpu().numpy()
    rows = []
    pictures = []
    for n, item in enumerate(items):
        own = slice(n, n + 1)
        length = int(batch["eeg_mask"][n].sum())
        of_row = {name: x[own] for name, x in batch.items() if isinstance(x, torch.Tensor)}
        scores = masked_scores(masked_sums(guess[own], of_row)["masked"])
        r2 = scores["val_masked_r2"]
        rows.append((item.where, item.subject, r2, scores["val_interpolation_r2"]))
        title = f"{item.where}\npredicted masked EEG: R2 {r2:.3f}"
        given = item, batch["eeg"][n, :length].cpu().numpy(), title
        caption = "EEG, and predicted masked EEG (red)"
        pictures.append(draw_eeg(f"eeg_{n + 1}", *given, caption, shown[n, :length]))
    return Predictions(("recording", "reader", "masked_r2", "interpolation_r2"), rows, pictures)


def pictures(task: Any) -> list[Picture]:
    """A few training samples. May read from the disk."""
    samples = task.data("train")
    found = []
    for index in sorted({0, len(samples) // 2, len(samples) - 1}):
        item = samples.item(index)
        eeg = samples.given(index)
        title = item.text or item.group
        found.append(draw_eeg(f"eeg-{index}", item, eeg, title, title))
    return found


def draw_eeg(
    name: str,
    item: Item,
    eeg: np.ndarray,
    title: str,
    caption: str,
    guess: np.ndarray | None = None,
) -> Picture:
    """A picture of `eeg` [time, 105] of `item`, in standard deviations: two channels of each region.

    `guess`, of the same shape, is drawn over it in red, except NaN.
    """
    rows = []
    for region, channels in INDICES.items():
        for channel in [c for c in channels if eeg[:, c].any()][:PER_REGION]:
            traces = [(eeg[:, channel], "#1f5c99")]
            traces += [] if guess is None else [(guess[:, channel], MARK)]
            rows.append(TraceRow(f"{region} {SLOTS[channel]}", traces))
    times = range(0, len(eeg), RATE_HZ // 5)
    ticks = [(sample / len(eeg), f"{sample / RATE_HZ:.1f} s") for sample in times]
    caption = f"{item.where}, reader {item.subject}: {caption}"
    return Picture(name, caption, draw_traces(rows, ticks, ROW, ROW / 6, title))


def predict(task: Any, model: Any, path: Path) -> Iterator[Prediction]:
    """What the task makes of each recording of a file or folder.

    A segment is a row of the table beside a continuous recording, or else a window; or a sentence
    of ZuCo. Raises DataError.
    """
    names = DistinctNames()
    data = task.data_settings
    trained = task.trained
    rules = SampleRules(data.seq_len, data.windows, task.context.seed, is_noise=False)
    with input_errors():
        source = existing_path(str(path), "; ".join(formats.FORMATS))
        paths = list(files.first_parts(source))
        if not paths:
            raise unknown_format(path, formats.FORMATS)
    for file in paths:
        name = file.relative_to(path) if file != path else Path(file.name)
        title = name.with_suffix("").as_posix()
        with input_errors():
            recordings = files.read(str(file), data, "predict", trained.channel_map)
            for item in recordings.items:
                trained.check(item, file)
            items = recordings.items
            device = task.context.device
            chunks = (items[at : at + BATCH] for at in range(0, len(items), BATCH))
            eeg = ([prepared(item.load(), rules.most) for item in chunk] for chunk in chunks)
            given = (placed(encoder_inputs(segments, rules), device) for segments in eeg)
            prediction = task.answer(model, given, recordings, title)
        notes = [f"  note: {note}" for note in recordings.facts.get("notes", ())]
        yield replace(prediction, name=names.of(title), text="\n".join([prediction.text, *notes]))
    inputs = [file for file in formats.candidates(source) if formats.of_file(file)]
    yield from passed_over(source, [*inputs, *filter(None, map(bids.events_path, inputs))])


def sentences_file(
    task: Any, model: Module, given: Iterator[Batch], recordings: Recordings, title: str
) -> Prediction:
    """The sentence of each item: as lines, and as JSON with times."""
    texts = [
        text for b in given for text in sentences(model, b, task.tokenizer, task.trained.steps)
    ]
    rows = []
    for item, text in zip(recordings.items, texts, strict=True):
        times = {"start_s": item.start_s, "duration_s": item.samples / RATE_HZ}
        rows.append({"segment": item.where, **times, "text": text})
    content = json.dumps({"recording": title, "segments": rows}, indent=1, ensure_ascii=False)
    lines = [title, *(f"  {row['segment']}: {row['text']}" for row in rows)]
    return Prediction(title, "\n".join(lines), {".json": content.encode()})


@torch.no_grad()
def features(
    task: Any, model: Any, given: Iterator[Batch], recordings: Recordings, title: str
) -> Prediction:
    """The features of each item: a token is 8 ms, or the mean of the windows of a segment."""
    states = []
    masks = []
    items = recordings.items
    for batch in given:
        memory = model.encoder(batch["eeg"], batch.get("eeg_windows", batch["eeg_mask"]))
        if "eeg_pool" in batch:
            memory = pooled(memory, batch["eeg_pool"])
        states.append(memory.float().cpu().numpy())
        masks.append(batch["eeg_mask"][:, ::TOKEN_SAMPLES].cpu().numpy())
    more = {
        "start_s": np.array([nan if item.start_s is None else item.start_s for item in items]),
        "duration_s": np.array([item.samples / RATE_HZ for item in items]),
    }
    names = [item.where for item in items]
    valid = np.concatenate(masks)
    return features_file(title, title, names, np.concatenate(states), valid, more)
