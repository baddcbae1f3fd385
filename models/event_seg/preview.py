"""Previews: pictures of windows with labels, and predictions of a few windows."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from models.base import Picture, Predictions
from models.common.predictions import few_samples, placed, png
from models.event_seg.metric import EdgeMetric
from models.event_seg.windows import Sample, Windows, collate

_LEAST_WIDTH = 320
_RED, _BLUE, _GREY = (214, 39, 40), (31, 119, 180), (127, 127, 127)


def draw_sample(sample: Sample, number: int) -> Picture:
    """Picture of a window (red brighter, blue darker) beside its label.

    Label: foreground white, ignored grey.
    """
    meta = sample.meta
    caption = (
        f"{sample_name(sample)}: {meta['events']:,} events in "
        f"{1e3 * (meta['t1'] - meta['t0']):.3g} ms (red brighter, blue darker), and its label"
    )
    panels = _polarity(sample.events.sum(0)), _label(sample.labels)
    return Picture(f"window_{number}", caption, _side_by_side(*panels))


def draw_prediction(sample: Sample, maps: np.ndarray, number: int) -> Picture:
    """Picture of the input, the target and the prediction of a window.

    `maps` [2, height, width]: model output.
    """
    predicted = _label((maps[1] > maps[0]).astype(np.int64))
    predicted[(sample.labels != 0) & (sample.labels != 1)] = _GREY
    caption = f"{sample_name(sample)}: input, target, prediction"
    panels = _polarity(sample.events.sum(0)), _label(sample.labels), predicted
    return Picture(f"window_{number}", caption, _side_by_side(*panels))


def sample_name(sample: Sample) -> str:
    """Recording and number of a window."""
    return f"{sample.meta['recording']}, window {sample.meta['frame']}"


def _side_by_side(*panels: np.ndarray) -> bytes:
    """PNG of `panels` [height, width, 3] uint8 side by side, enlarged to a visible size."""
    gap = np.full((len(panels[0]), 4, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)]
    picture = np.concatenate(parts[1:], axis=1)
    scale = max(1, -(-_LEAST_WIDTH // picture.shape[1]))
    return png(Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)))


def _polarity(mass: np.ndarray) -> np.ndarray:
    """Polarity as colors on white, [height, width, 3] uint8."""
    # A quantile, because one hot pixel would make all others pale.
    strength = np.clip(np.abs(mass) / max(1e-6, float(np.quantile(np.abs(mass), 0.98))), 0, 1)
    color = np.where((mass > 0)[..., None], np.array(_RED), np.array(_BLUE))
    return (255 - strength[..., None] * (255 - color)).astype(np.uint8)


def _label(labels: np.ndarray) -> np.ndarray:
    shade = np.select([labels == 1, labels == 0], [255, 0], _GREY[0]).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=2)


SHOWN = 4
NAMES = ("val_iou", "precision", "recall")


def predict(model: Module, windows: Windows, device: torch.device) -> Predictions:
    """Predictions and scores of windows spread over a split. One forward pass. Collective."""
    samples: list[Sample] = few_samples(windows, SHOWN)
    batch, metric = placed(collate(samples), device), EdgeMetric()
    loss, maps = model(batch["events"], batch["mask"], measure=True)
    rows, pictures = [], []
    for row, sample in enumerate(samples):
        of_sample = {"mask": batch["mask"][row : row + 1]}
        scores = metric.result(metric.counts(loss, maps[row : row + 1], of_sample).cpu())
        rows.append((sample_name(sample), sample.meta["events"], *(scores[name] for name in NAMES)))
        pictures.append(draw_prediction(sample, maps[row].cpu().numpy(), row + 1))
    heads = [name.removeprefix("val_") for name in NAMES]
    return Predictions(("window", "events", *heads), rows, pictures)
