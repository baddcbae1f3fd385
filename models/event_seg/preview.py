"""Windows drawn for a person: events by polarity, beside what is to be learnt of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import Module

from models.base import Picture, Predictions
from models.common.fixed_samples import few_samples
from models.event_seg.metric import EdgeMetric, MassMetric
from models.event_seg.windows import Sample, Windows, collate

_LEAST_WIDTH = 320
_RED, _BLUE, _GREY = (214, 39, 40), (31, 119, 180), (127, 127, 127)


def draw(sample: Sample, number: int) -> Picture:
    """The voxel grid summed over time, red where it is brighter and blue where it is darker, and to
    its right the label: foreground white, ignored grey; or the hidden pixels grey."""
    left = _polarity(sample.events.sum(0))
    right = _label(sample.labels) if sample.hidden is None else left.copy()
    if sample.hidden is not None:
        right[sample.hidden] = _GREY
    meta = sample.meta
    what = "the pixels to tell" if sample.hidden is not None else "its label"
    caption = (
        f"{name(sample)}: {meta['events']:,} events in "
        f"{1e3 * (meta['t1'] - meta['t0']):.3g} ms (red brighter, blue darker), and {what}"
    )
    return Picture(f"window_{number}", caption, _side_by_side(left, right))


def compare(sample: Sample, maps: np.ndarray, number: int) -> Picture:
    """What was seen of a window, what was to be told of it and what was told, side by side.

    `maps` [2, height, width] are the model's: classes, or mass by polarity where pixels are hidden.
    """
    seen = _polarity(sample.events.sum(0))
    if sample.hidden is None:
        wanted = _label(sample.labels)
        told = _label((maps[1] > maps[0]).astype(np.int64))
        told[(sample.labels != 0) & (sample.labels != 1)] = _GREY
    else:
        seen[sample.hidden] = _GREY
        wanted, told = (_polarity(mass[0] - mass[1]) for mass in (sample.labels, maps))
        told[~sample.hidden] = _GREY
    caption = f"{name(sample)}: what was seen, what was to be told, what was told"
    return Picture(f"window_{number}", caption, _side_by_side(seen, wanted, told))


def name(sample: Sample) -> str:
    """Which window it is."""
    return f"{sample.meta['recording']}, window {sample.meta['frame']}"


def _side_by_side(*panels: np.ndarray) -> bytes:
    """The PNG of `panels` [height, width, 3], uint8, in dots that can be seen."""
    gap = np.full((len(panels[0]), 4, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (gap, panel)]
    picture = np.concatenate(parts[1:], axis=1)
    times = max(1, -(-_LEAST_WIDTH // picture.shape[1]))
    file = io.BytesIO()
    Image.fromarray(picture.repeat(times, 0).repeat(times, 1)).save(file, format="PNG")
    return file.getvalue()


def _polarity(mass: np.ndarray) -> np.ndarray:
    """White where nothing happened, [height, width, 3] uint8."""
    # Not the largest: one hot pixel would make all others pale.
    strength = np.clip(np.abs(mass) / max(1e-6, float(np.quantile(np.abs(mass), 0.98))), 0, 1)
    colour = np.where((mass > 0)[..., None], np.array(_RED), np.array(_BLUE))
    return (255 - strength[..., None] * (255 - colour)).astype(np.uint8)


def _label(labels: np.ndarray) -> np.ndarray:
    shade = np.select([labels == 1, labels == 0], [255, 0], _GREY[0]).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=2)


SHOWN = 4
INPUTS = ("events", "mask", "mass", "hidden")


def predict(model: Module, windows: Windows, device: torch.device) -> Predictions:
    """Windows spread over a split, each with its scores. One forward pass, collective."""
    samples: list[Sample] = few_samples(windows, SHOWN)
    batch = {key: x.to(device) for key, x in collate(samples).items() if key in INPUTS}
    metric = MassMetric() if windows.rules.is_masked else EdgeMetric()
    given = [batch[key] for key in ("events", "mass", "hidden", "mask") if key in batch]
    loss, maps = model(*given, measure=True)
    scores = [_scores(metric, loss, maps, batch, row) for row in range(len(samples))]
    rows, pictures = [], []
    for number, (sample, own) in enumerate(zip(samples, maps.cpu().numpy(), strict=True)):
        rows.append((name(sample), sample.meta["events"], *scores[number].values()))
        pictures.append(compare(sample, own, number + 1))
    return Predictions(("window", "events", *scores[0]), rows, pictures)


def _scores(
    metric: EdgeMetric | MassMetric, loss: Tensor, maps: Tensor, batch: Mapping[str, Any], row: int
) -> dict[str, float]:
    """The metrics of one sample, but for the loss, which is of all."""
    own = {key: x[row : row + 1] for key, x in batch.items()}
    found = metric.result(metric.counts(loss, maps[row : row + 1], own).cpu())
    wanted = ("val_iou", "precision", "recall", "val_masked_r2")
    return {key.removeprefix("val_"): found[key] for key in wanted if key in found}
