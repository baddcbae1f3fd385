"""Pictures of windows, and predictions of windows as rows, pictures and files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch.nn import Module

from gearshift.models.base import DataError, Picture, Prediction, Predictions
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
from gearshift.models.event_seg.network import IGNORE
from gearshift.models.event_seg.readers.files import open_recording
from gearshift.models.event_seg.readers.recording import EventRecording, Sides
from gearshift.models.event_seg.windows import Sample, Windows, collate, normalize, voxelize

PICTURES = 2
SHOWN = 4
SCORES = ("val_iou", "precision", "recall")
_LEAST_WIDTH = 320
_RED = (214, 39, 40)
_BLUE = (31, 119, 180)
_GREY = 127


def pictures(windows: Windows) -> list[Picture]:
    """Pictures of a few windows (red brighter, blue darker) beside their labels.

    Label: foreground white, ignored grey.
    """
    drawings = []
    for number, sample in enumerate(few_samples(windows, PICTURES), start=1):
        length_ms = 1e3 * (sample.meta["t1"] - sample.meta["t0"])
        caption = (
            f"{sample_name(sample)}: {sample.meta['events']:,} events in {length_ms:.3g} ms "
            "(red brighter, blue darker), and its label"
        )
        picture = _side_by_side(_polarity(sample), _label(sample.labels))
        drawings.append(Picture(f"window_{number}", caption, picture))
    return drawings


def build_predictions(
    model: Module,
    windows: Windows,
    device: torch.device,
) -> Predictions:
    """Predictions and scores of windows spread over a split. One forward pass. Collective."""
    samples: list[Sample] = few_samples(windows, SHOWN)
    batch = placed(collate(samples), device)
    loss, maps = model(batch["events"], batch["mask"], measure=True)
    rows = []
    drawings = []
    parts = zip(
        samples,
        maps.split(1),
        batch["mask"].split(1),
        strict=True,
    )
    for number, (sample, map_pair, mask) in enumerate(parts, start=1):
        name = sample_name(sample)
        scores = metric.scores({"loss": loss, **metric.overlap(map_pair, mask)})
        rows.append((name, sample.meta["events"], *map(scores.get, SCORES)))
        predicted = np.where(sample.labels == IGNORE, IGNORE, _foreground(map_pair))
        picture = _side_by_side(_polarity(sample), _label(sample.labels), _label(predicted))
        caption = f"{name}: input, target, prediction"
        drawings.append(Picture(f"window_{number}", caption, picture))
    return Predictions(("window", "events", "iou", "precision", "recall"), rows, drawings)


def _foreground(maps: torch.Tensor) -> ndarray:
    """Whether a pixel is predicted as foreground by `maps` [1, 2, height, width]."""
    background, foreground = maps[0]
    return (foreground > background).cpu().numpy()


def sample_name(sample: Sample) -> str:
    """Recording and number of a window."""
    return f"{sample.meta['recording']}, window {sample.meta['frame']}"


def _side_by_side(*panels: ndarray) -> bytes:
    """PNG of `panels` [height, width, 3] uint8 side by side, enlarged to a visible size."""
    gap = ((0, 0), (0, 4), (0, 0))
    parts = [np.pad(panel, gap, constant_values=255) for panel in panels]
    picture = np.concatenate(parts, axis=1)
    scale = max(1, math.ceil(_LEAST_WIDTH / picture.shape[1]))
    return png(Image.fromarray(picture.repeat(scale, 0).repeat(scale, 1)))


def _polarity(sample: Sample) -> ndarray:
    """Polarity of the events as colors on white, [height, width, 3] uint8."""
    mass = sample.events.sum(0)[..., None]
    # A quantile, because one hot pixel would make all others pale.
    full = max(1e-6, float(np.quantile(np.abs(mass), 0.98)))
    strength = np.clip(np.abs(mass) / full, 0, 1)
    color = np.where(mass > 0, _RED, _BLUE)
    return (255 - strength * (255 - color)).astype(np.uint8)


def _label(labels: ndarray) -> ndarray:
    shade = np.select([labels == 1, labels == 0], [255, 0], _GREY)
    return shade.astype(np.uint8)[..., None].repeat(3, axis=2)


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
    by row, as tokens. `task` is the one of the family. Masks and frames are not read. Raises
    DataError.
    """
    names = DistinctNames()
    trained = task.trained
    with input_errors():
        known = known_files(existing_path(str(path), "; ".join(FORMATS)), recognize, FORMATS)
    for name, (file, form) in known.items():
        title = name.removesuffix(file.suffix)
        start = names.of(title)
        with input_errors():
            recording = open_recording(
                file,
                title,
                form,
                trained.window_ms,
                task.data_settings.sensor,
                trained.sensor,
            )
            if not len(recording.windows):
                raise DataError(
                    f"'{file.name}' is shorter than a window of {trained.window_ms:.4g} ms",
                    where=str(file),
                    allowed="a recording of at least one window of the length in training",
                )
        for number in range(len(recording.windows)):
            yield _predict_window(
                task,
                model,
                recording,
                number,
                f"{start}-{number:05d}",
            )
    yield from passed_over(path, [file for file, _ in known.values()])


def _predict_window(
    task: Any,
    model: Module,
    recording: EventRecording,
    number: int,
    name: str,
) -> Prediction:
    sides = task.grid(recording.sensor)
    start, stop = recording.windows[number]
    events = recording.events(number)
    coarse = events.downsampled(task.downsample, *sides)
    grid = voxelize(coarse, start, stop, (BINS, *sides))
    x = torch.from_numpy(normalize(grid))[None].to(task.context.device)
    with torch.no_grad():
        x = task.part(model)(x).float().cpu()

    begin, end = recording.windows[number] / recording.second
    text = f"{recording.name}, {begin:.3f} to {end:.3f} s: {len(events):,} events"
    if task.stage == ENCODER:
        cells = {"grid": np.array(x.shape[2:])}
        return features_file(
            name,
            text,
            [text],
            x.flatten(2).mT.numpy(),
            more=cells,
        )
    mask = _foreground(x)
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    text += f", foreground {mask.mean():.1%}"
    return Prediction(name, text, {".png": png(image)})
