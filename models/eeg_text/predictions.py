"""What the model makes of a few recordings: sentences, or the EEG that was hidden."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from models.base import Batch, Predictions
from models.common.chosen import few, spread
from models.eeg_text.batches import masked
from models.eeg_text.dataset import MaskedSamples, TextSamples
from models.eeg_text.pictures import draw
from models.eeg_text.preview import legible, sentences
from models.eeg_text.recordings import words
from models.eeg_text.scoring.masked_metric import MaskedMetric, told
from models.eeg_text.scoring.scores import rouge1, word_errors

SHOWN = 3


def written(model: Module, samples: TextSamples, batch: Batch, device: torch.device) -> Predictions:
    """What is written of the recordings of `batch`, `SHOWN` of `samples`. Collective."""
    own = sentences(model, batch, samples.texts, device)
    rows, pictures = [], []
    places = spread(len(samples), SHOWN)
    for number, (place, text, read) in enumerate(zip(places, own, batch["text"], strict=True), 1):
        item, found, wanted = (
            samples.recordings.items[samples.numbers[place]],
            words(text),
            words(read),
        )
        errors = word_errors(found, wanted) / max(1, len(wanted))
        rows.append((item.where, legible(read), text, rouge1(found, wanted), errors))
        title = f"read:    {legible(read)}\nwritten: {text}"
        caption = f"{item.where}, reader {item.subject}: EEG, what was read, what is written"
        pictures.append(draw(f"eeg_{number}", samples.given(place), title, caption))
    columns = ("recording", "read", "written", "rouge1", "word error rate")
    return Predictions(columns, rows, pictures)


def filled(model: Module, samples: MaskedSamples, length: int, device: torch.device) -> Predictions:
    """What is told of hidden EEG, `SHOWN` of `samples`. One forward pass, collective."""
    batch: dict[str, Any] = {
        name: x.to(device) if isinstance(x, torch.Tensor) else x
        for name, x in masked(few(samples, SHOWN), length).items()
    }
    seen, valid = batch.get("seen", batch["eeg"]), batch.get("seen_mask", batch["eeg_mask"])
    guess = model(seen, valid, batch["mask_target"]).float()
    shown = torch.where(told(batch), guess, torch.nan).cpu().numpy()
    rows, pictures = [], []
    for row, place in enumerate(spread(len(samples), SHOWN)):
        item = samples.recordings.items[samples.numbers[place]]
        scores = _scores(guess, batch, row)
        rows.append((item.where, item.subject, *scores))
        eeg = batch["eeg"][row].cpu().numpy()
        eeg, own = (x[: int(batch["eeg_mask"][row].sum())] for x in (eeg, shown[row]))
        title = f"{item.where}\nhidden EEG as it is told: R2 {scores[0]:.3f}"
        caption = f"{item.where}, reader {item.subject}: EEG, and hidden EEG as it is told (red)"
        pictures.append(draw(f"eeg_{row + 1}", eeg, title, caption, own))
    columns = ("recording", "reader", "masked_r2", "interpolation_r2")
    return Predictions(columns, rows, pictures)


def _scores(guess: torch.Tensor, batch: Batch, row: int) -> tuple[float, float]:
    """Of one sample: the R² of what was told, and that of straight lines."""
    own = {name: x[row : row + 1] for name, x in batch.items() if isinstance(x, torch.Tensor)}
    metric = MaskedMetric()
    found = metric.result(metric.counts(guess[row : row + 1], own).cpu())
    return found["val_masked_r2"], found["val_interpolation_r2"]
