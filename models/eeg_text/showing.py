"""What is shown of a model, in reports and for files: `task` is the one of the family."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
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
    tokens = (
        generate(
            model,
            memory,
            valid,
            steps,
            tokenizer,
        )
        .cpu()
        .tolist()
    )
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
        generated = sentences(
            model,
            batch,
            task.tokenizer,
            task.texts.steps,
        )
    lines = []
    for read, text in zip(batch["text"], generated, strict=True):
        lines += [f"read       {printable(read)}", f"generated  {text}"]
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
        read = printable(batch["text"][n])
        expected = words(read)
        actual = words(texts[n])
        row = (
            item.where,
            read,
            texts[n],
            texts[len(positions) + n],
            rouge1(actual, expected),
            word_errors(actual, expected) / max(1, len(expected)),
        )
        rows.append(row)
        picture = draw_eeg(
            f"eeg_{n + 1}",
            item,
            split.input_eeg(position),
            title=f"read:      {read}\ngenerated: {texts[n]}",
            caption="EEG, read and generated sentence",
        )
        pictures.append(picture)
    columns = ("recording", "read", "generated", "from noise", "rouge1", "word error rate")
    return Predictions(columns, rows, pictures)


def masked_predictions(task: Any, model: Module) -> Predictions:
    """Masked EEG predicted for a few samples. Collective."""
    split = task.data("val")
    samples = few_samples(split, SHOWN)
    rows = []
    pictures = []
    for sample, position in zip(samples, spread_positions(len(split), SHOWN), strict=True):
        item = split.item(position)
        batch = placed(task.collate([sample]), task.context.device)
        guess = predict_masked(model, batch)
        scores = masked_scores(masked_sums(guess, batch)["masked"])
        r2 = scores["val_masked_r2"]
        rows.append((item.where, item.subject, r2, scores["val_interpolation_r2"]))
        (masked_guess,) = torch.where(masked_values(batch), guess, torch.nan).cpu().numpy()
        picture = draw_eeg(
            f"eeg_{len(rows)}",
            item,
            sample["eeg"],
            title=f"{item.where}\npredicted masked EEG: R2 {r2:.3f}",
            caption="EEG, and predicted masked EEG (red)",
            guess=masked_guess[: len(sample["eeg"])],
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
    for index in spread_positions(len(samples), SHOWN):
        item = samples.item(index)
        title = item.text or item.group
        pictures.append(
            draw_eeg(
                f"eeg-{index}",
                item,
                samples.input_eeg(index),
                title,
                title,
            )
        )
    return pictures


def draw_eeg(
    name: str,
    item: Item,
    eeg: ndarray,
    title: str,
    caption: str,
    guess: ndarray | None = None,
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
    ticks = []
    for sample in range(0, len(eeg), RATE_HZ // 5):
        ticks.append((sample / len(eeg), f"{sample / RATE_HZ:.1f} s"))
    return Picture(
        name,
        f"{item.where}, reader {item.subject}: {caption}",
        draw_traces(
            rows,
            ticks,
            ROW,
            ROW / 6,
            title,
        ),
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
        name = file.name if file == path else file.relative_to(path)
        title = Path(name).with_suffix("").as_posix()
        with input_errors():
            settings = task.data_settings
            recordings = files.read(
                str(file),
                settings,
                "predict",
                trained.channel_map,
            )
            for item in recordings.items:
                trained.check(item, file)
            prediction = task.answer(model, recordings, title)
        notes = [f"  note: {note}" for note in recordings.facts.get("notes", ())]
        text = "\n".join([prediction.text, *notes])
        yield replace(prediction, name=names.of(title), text=text)
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
        texts += sentences(
            model,
            batch,
            task.tokenizer,
            task.trained.steps,
        )
    segments = []
    for item, text in zip(recordings.items, texts, strict=True):
        segment = {
            "segment": item.where,
            "start_s": item.start_s,
            "duration_s": item.samples / RATE_HZ,
            "text": text,
        }
        segments.append(segment)
    lines = [title, *("  {segment}: {text}".format_map(segment) for segment in segments)]
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
    times = {
        "start_s": np.array([item.start_s for item in items], np.float64),  # NaN for None
        "duration_s": np.array([item.samples for item in items]) / RATE_HZ,
    }
    return features_file(
        title,
        title,
        [item.where for item in items],
        np.concatenate(states),
        np.concatenate(masks),
        times,
    )
