"""Pictures and predictions of windows, for reports and files; `task` is the one of the family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image, ImageOps
from torch.nn import Module

from gearshift.models.base import Picture, Prediction, Predictions
from gearshift.models.common.data_files import existing_path, known_files
from gearshift.models.common.family import ENCODER
from gearshift.models.common.predictions import (
    DistinctNames,
    features_file,
    few_samples,
    input_errors,
    passed_over,
    placed,
    png,
)
from gearshift.models.event_seg import metric
from gearshift.models.event_seg.config import BINS
from gearshift.models.event_seg.formats import FORMATS, recognize
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.event_seg.readers.recording import Sides
from gearshift.models.event_seg.windows import collate, normalize, voxelize

PICTURES = 2
SHOWN = 4
SCORES = ("val_iou", "precision", "recall")
_SIDE = 640
"""Pixels of the longer side of a picture."""


def pictures(task: Any) -> list[Picture]:
    """A few training windows: events red, foreground of the label green."""
    samples = few_samples(task.data("train"), PICTURES)
    return [_picture(number, sample, False) for number, sample in enumerate(samples, start=1)]


def predictions(task: Any, model: Module) -> Predictions:
    """Predictions and scores of a few validation windows, one after the other. Collective."""
    rows = []
    drawings = []
    for number, sample in enumerate(few_samples(task.data("val"), SHOWN), start=1):
        batch = placed(collate([sample]), task.context.device)
        loss, maps = model(batch["events"], batch["mask"], measure=True)
        scores = metric.scores({"loss": loss, **metric.overlap(maps, batch["mask"])})
        rows.append((_title(sample), sample["meta"]["events"], *map(scores.get, SCORES)))
        drawings.append(_picture(number, sample, _foreground(maps[0])))
    return Predictions(("window", "events", "iou", "precision", "recall"), rows, drawings)


def _foreground(maps: torch.Tensor) -> ndarray:
    """Whether a pixel is predicted as foreground by `maps` [2, height, width]."""
    return (maps[1] > maps[0]).cpu().numpy()


def _title(sample: Mapping[str, Any]) -> str:
    return "{recording}, window {frame}".format(**sample["meta"])


def _picture(number: int, sample: Mapping[str, Any], predicted: ndarray | bool) -> Picture:
    """Events red, the label green and the prediction blue: where both are right it is cyan."""
    strength = np.abs(sample["events"].sum(0)).clip(0, 1)
    colors = np.broadcast_arrays(strength, sample["labels"] == 1, predicted)
    pixels = (255 * np.stack(colors, axis=-1)).astype(np.uint8)
    image = ImageOps.contain(Image.fromarray(pixels), (_SIDE, _SIDE), Image.Resampling.NEAREST)
    caption = f"{_title(sample)}: events (red), label (green), prediction (blue)"
    return Picture(f"window_{number}", caption, png(image))


@dataclass(frozen=True)
class TrainedOnEvents:
    """What the model was trained on, as far as predictions depend on it."""

    window_ms: float
    """Median length of the windows, in ms."""
    sensor: Sides
    """Height and width."""


def predict(
    task: Any,
    model: Module,
    path: Path,
) -> Iterator[Prediction]:
    """The mask of each window of the recordings at `path`, of the length of those in training.

    As PNG: 255 foreground, 0 background; of an encoder its features, with the cells of a grid, row
    by row, as tokens. Masks and frames are not read. Raises DataError.
    """
    names = DistinctNames()
    trained = task.trained
    with input_errors():
        known = known_files(existing_path(str(path), "; ".join(FORMATS)), recognize, FORMATS)
    for name, (file, form) in known.items():
        title = name.removesuffix(file.suffix)
        prefix = names.of(title)
        with input_errors():
            recording = open_recording(
                file,
                title,
                form,
                trained.window_ms,
                task.data_settings.sensor,
                trained.sensor,
            )
        for number, window in enumerate(recording.windows):
            events = recording.events(number)
            begin, end = window / recording.second
            text = f"{title}, {begin:.3f} to {end:.3f} s: {len(events):,} events"
            sides = task.grid(recording.sensor)
            coarse = events.downsampled(task.downsample, *sides)
            start, stop = window
            grid = normalize(voxelize(coarse, start, stop, (BINS, *sides)))
            yield _predict_grid(task, model, grid, f"{prefix}-{number:05d}", text)
    yield from passed_over(path, [file for file, _ in known.values()])


@torch.no_grad()
def _predict_grid(
    task: Any,
    model: Module,
    grid: ndarray,
    name: str,
    text: str,
) -> Prediction:
    x = torch.from_numpy(grid)[None].to(task.context.device)
    x = task.part(model)(x).float().cpu()
    if task.stage == ENCODER:
        cells = {"grid": np.array(x.shape[2:])}
        tokens = x.flatten(2).mT.numpy()
        return features_file(name, text, [text], tokens, more=cells)
    mask = _foreground(x[0])
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    text = f"{text}, foreground {mask.mean():.1%}"
    return Prediction(name, text, {".png": png(image)})
