"""Text preview, predictions and pictures of EEG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import Module

from models.base import Batch, Picture, Predictions
from models.common.predictions import evaluating, placed, scores_of
from models.common.predictions import spread_positions as positions_of
from models.common.traces import MARK, TraceRow, draw_traces
from models.eeg_text.dataset import MaskedSamples, TextSamples
from models.eeg_text.metric import MASKED, encode_inputs, generate, masked_values, rouge1, word_errors
from models.eeg_text.montage import INDICES, SLOTS
from models.eeg_text.recordings import RATE_HZ, words
from models.eeg_text.texts import SentenceTexts, SentenceTokenizer


def render_preview(model: Module, batch: Batch, texts: SentenceTexts, device: torch.device) -> str:
    """For each sample, the sentence that was read and the generated one.

    Collective if the model is sharded.
    """
    with evaluating(model):
        generated = sentences(model, batch, texts.tokenizer, texts.steps, device)
    pairs = zip(batch["text"], generated, strict=True)
    return "\n".join(f"read       {line(read)}\ngenerated  {text}" for read, text in pairs)


def line(text: str) -> str:
    """`text` as one line, without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@torch.no_grad()
def sentences(
    model: Module,
    batch: Batch,
    tokenizer: SentenceTokenizer,
    steps: int,
    device: torch.device,
    inputs: Sequence[str] = ("eeg",),
) -> list[str]:
    """The sentences of at most `steps` tokens generated for `batch`, first all of the first input.

    Collective if the model is sharded.
    """
    memory, valid = encode_inputs(model, placed(batch, device), inputs)
    tokens = generate(model, memory, valid, steps, tokenizer).cpu().tolist()
    return [line(tokenizer.decode(row)) for row in tokens]


SHOWN = 3


def text_predictions(model: Module, samples: TextSamples, batch: Batch, device: torch.device) -> Predictions:
    """Sentences generated for `batch`, which holds `SHOWN` of `samples`, and for noise beside them.

    Collective.
    """
    texts = samples.texts
    both = sentences(model, batch, texts.tokenizer, texts.steps, device, ("eeg", "noise"))
    by_eeg, noise = both[: len(both) // 2], both[len(both) // 2 :]
    rows, pictures = [], []
    positions = positions_of(len(samples), SHOWN)
    every = zip(positions, by_eeg, noise, batch["text"], strict=True)
    for number, (position, text, by_noise, read) in enumerate(every, 1):
        item = samples.item(position)
        hypothesis, wanted = words(text), words(read)
        errors = word_errors(hypothesis, wanted) / max(1, len(wanted))
        scores = rouge1(hypothesis, wanted), errors
        rows.append((item.where, line(read), text, by_noise, *scores))
        title = f"read:      {line(read)}\ngenerated: {text}"
        caption = f"{item.where}, reader {item.subject}: EEG, read and generated sentence"
        pictures.append(draw_eeg(f"eeg_{number}", samples.given(position), title, caption))
    columns = ("recording", "read", "generated", "from noise", "rouge1", "word error rate")
    return Predictions(columns, rows, pictures)


def masked_predictions(
    model: Module, samples: MaskedSamples, batch: Batch, device: torch.device
) -> Predictions:
    """Masked EEG predicted for `batch`, which holds `SHOWN` of `samples`. Collective."""
    batch = placed(batch, device)
    guess = MASKED.predict(model, batch).float()
    shown = torch.where(masked_values(batch), guess, torch.nan).cpu().numpy()
    rows, pictures = [], []
    for row, position in enumerate(positions_of(len(samples), SHOWN)):
        item = samples.item(position)
        scores = scores_of(MASKED, guess, batch, row)
        r2 = scores["val_masked_r2"]
        rows.append((item.where, item.subject, r2, scores["val_interpolation_r2"]))
        eeg = batch["eeg"][row].cpu().numpy()
        eeg, predicted = (x[: int(batch["eeg_mask"][row].sum())] for x in (eeg, shown[row]))
        title = f"{item.where}\npredicted masked EEG: R2 {r2:.3f}"
        caption = f"{item.where}, reader {item.subject}: EEG, and predicted masked EEG (red)"
        pictures.append(draw_eeg(f"eeg_{row + 1}", eeg, title, caption, predicted))
    columns = ("recording", "reader", "masked_r2", "interpolation_r2")
    return Predictions(columns, rows, pictures)


ROW = 26
"""Height of a row in pixels; six standard deviations fill it."""
PER_REGION = 2


def draw_eeg(
    name: str, eeg: np.ndarray, title: str, caption: str, guess: np.ndarray | None = None
) -> Picture:
    """A picture of `eeg` [time, 105], in standard deviations: two channels of each region.

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
    return Picture(name, caption, draw_traces(rows, ticks, ROW, ROW / 6, title))
