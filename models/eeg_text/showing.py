"""What is masked_guess of a model, in reports and for files: `task` is the one of the family."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from gearshift.models.eeg_text.dataset import (
    SampleRules,
    encoder_inputs,
    masked_values,
    standardize,
)
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
from gearshift.models.eeg_text.network import pool_tokens
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
    tokens = generate(model, memory, valid, steps, tokenizer).cpu().tolist()
    return [printable(tokenizer.decode(row)) for row in tokens]


def _few(task: Any) -> tuple[Batch, list[int]]:
    """A few validation samples, and their positions in the split."""
    split = task.data("val")
    batch = task.collate(few_samples(split, SHOWN))
    return placed(batch, task.context.device), spread_positions(len(split), SHOWN)


def preview(task: Any, model: Module) -> str:
    """For a few samples, the sentence that was read and the generated one. Collective."""
    batch, _ = _few(task)
    with evaluating(model):
        generated = sentences(model, batch, task.tokenizer, task.texts.steps)
    lines = []
    for read, text in zip(batch["text"], generated, strict=True):
        lines.append(f"read       {printable(read)}")
        lines.append(f"generated  {text}")
    return "\n".join(lines)


def text_predictions(task: Any, model: Module) -> Predictions:
    """Sentences generated for a few samples, and for noise beside them. Collective."""
    split = task.data("val")
    batch, positions = _few(task)
    texts = sentences(
        model,
        batch,
        task.tokenizer,
        task.texts.steps,
        "compared",
    )
    rows = []
    pictures = []
    for n, position in enumerate(positions):
        item = split.item(position)
        read = batch["text"][n]
        generated = texts[n]
        from_noise = texts[len(positions) + n]
        expected = words(read)
        actual = words(generated)
        error_rate = word_errors(actual, expected) / max(1, len(expected))
        rows.append(
            (
                item.where,
                printable(read),
                generated,
                from_noise,
                rouge1(actual, expected),
                error_rate,
            )
        )
        picture = draw_eeg(
            f"eeg_{n + 1}",
            item,
            split.input_eeg(position),
            title=f"read:      {printable(read)}\ngenerated: {generated}",
            caption="EEG, read and generated sentence",
        )
        pictures.append(picture)
    columns = ("recording", "read", "generated", "from noise", "rouge1", "word error rate")
    return Predictions(columns, rows, pictures)


def masked_predictions(task: Any, model: Module) -> Predictions:
    """Masked EEG predicted for a few samples. Collective."""
    split = task.data("val")
    batch, positions = _few(task)
    guess = predict_masked(model, batch)
    masked_guess = torch.where(masked_values(batch), guess, torch.nan).cpu().numpy()
    rows = []
    pictures = []
    for n, position in enumerate(positions):
        item = split.item(position)
        row = slice(n, n + 1)
        tensors = {name: x[row] for name, x in batch.items() if isinstance(x, torch.Tensor)}
        scores = masked_scores(masked_sums(guess[row], tensors)["masked"])
        r2 = scores["val_masked_r2"]
        rows.append((item.where, item.subject, r2, scores["val_interpolation_r2"]))

        length = int(batch["eeg_mask"][n].sum())
        picture = draw_eeg(
            f"eeg_{n + 1}",
            item,
            batch["eeg"][n, :length].cpu().numpy(),
            title=f"{item.where}\npredicted masked EEG: R2 {r2:.3f}",
            caption="EEG, and predicted masked EEG (red)",
            guess=masked_guess[n, :length],
        )
        pictures.append(picture)
    return Predictions(
        ("recording", "reader", "masked_r2", "interpolation_r2"),
        rows,
        pictures,
    )


def pictures(task: Any) -> list[Picture]:
    """A few training samples. May read from the disk."""
    samples = task.data("train")
    pictures = []
    for index in sorted({0, len(samples) // 2, len(samples) - 1}):
        item = samples.item(index)
        eeg = samples.input_eeg(index)
        title = item.text or item.group
        pictures.append(draw_eeg(f"eeg-{index}", item, eeg, title, title))
    return pictures


def draw_eeg(
    name: str,
    item: Item,
    eeg: np.ndarray,
    title: str,
    caption: str,
    guess: np.ndarray | None = None,
) -> Picture:
    """A picture of `eeg` [time, 105] of `item`, in standard deviations.

    It shows two channels of each region. `guess`, of the same shape, is drawn over it in red,
    except NaN.
    """
    rows = []
    for region, channels in INDICES.items():
        recorded = [channel for channel in channels if eeg[:, channel].any()]
        for channel in recorded[:PER_REGION]:
            traces = [(eeg[:, channel], "#1f5c99")]
            if guess is not None:
                traces.append((guess[:, channel], MARK))
            rows.append(TraceRow(f"{region} {SLOTS[channel]}", traces))
    times = range(0, len(eeg), RATE_HZ // 5)
    ticks = [(sample / len(eeg), f"{sample / RATE_HZ:.1f} s") for sample in times]
    return Picture(
        name,
        f"{item.where}, reader {item.subject}: {caption}",
        draw_traces(rows, ticks, ROW, ROW / 6, title),
    )


def predict(task: Any, model: Any, path: Path) -> Iterator[Prediction]:
    """What the task makes of each recording of a file or folder.

    A segment is a row of the table beside a continuous recording, or else a window; or a sentence
    of ZuCo. Raises DataError.
    """
    trained = task.trained
    with input_errors():
        source = existing_path(str(path), "; ".join(formats.FORMATS))
        paths = list(files.first_parts(source))
        if not paths:
            raise unknown_format(path, formats.FORMATS)
    names = DistinctNames()
    for file in paths:
        if file != path:
            name = file.relative_to(path)
        else:
            name = Path(file.name)
        title = name.with_suffix("").as_posix()
        with input_errors():
            recordings = files.read(
                str(file),
                task.data_settings,
                "predict",
                trained.channel_map,
            )
            for item in recordings.items:
                trained.check(item, file)
            prediction = task.answer(model, recordings, title)
        lines = [prediction.text]
        lines += [f"  note: {note}" for note in recordings.facts.get("notes", ())]
        yield replace(prediction, name=names.of(title), text="\n".join(lines))
    # Tables of events were read with their recordings.
    inputs = [file for file in formats.candidates(source) if formats.of_file(file)]
    events = filter(None, map(bids.events_path, inputs))
    yield from passed_over(source, [*inputs, *events])


def _batches(task: Any, items: Sequence[Item]) -> Iterator[Batch]:
    """The EEG of `items`, read as it is needed."""
    data = task.data_settings
    rules = SampleRules(
        data.seq_len,
        data.windows,
        task.context.seed,
        is_noise=False,
    )
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
    content = json.dumps(
        {"recording": title, "segments": segments},
        indent=1,
        ensure_ascii=False,
    )
    return Prediction(title, "\n".join(lines), {".json": content.encode()})


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
    starts = np.array([item.start_s for item in items], np.float64)  # NaN for None
    return features_file(
        title,
        title,
        [item.where for item in items],
        np.concatenate(states),
        np.concatenate(masks),
        {
            "start_s": starts,
            "duration_s": np.array([item.samples / RATE_HZ for item in items]),
        },
    )
