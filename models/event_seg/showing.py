"""Pictures of windows, and predictions of windows as rows, pictures and files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from gearshift.models.base import DataError, Picture, Prediction, Predictions
from gearshift.models.common.data_files import existing_path, known_files
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
from gearshift.models.event_seg.windows import Sample, Windows, collate, normalize, voxelize

PICTURES = 2
SHOWN = 4
SCORES = ("val_iou", "precision", "recall")
_LEAST_WIDTH = 320
_RED = (214, 39, 40)
_BLUE = (31, 119, 180)
_GREY = (127, 127, 127)


def pictures(windows: Windows, seed: int) -> list[Picture]:
    """Pictures of a few windows (red brighter, blue darker) beside their labels.

    Label: foreground white, ignored grey.
    """
    rng = np.random.default_rng(seed)
    shown = []
    indices = {len(windows) * i // (PICTURES + 1) for i in range(1, PICTURES + 1)}
    for number, index in enumerate(sorted(indices), start=1):
        sample = windows.random_sample(index, rng)
        meta = sample.meta
        caption = (
            f"{sample_name(sample)}: {meta['events']:,} events in "
            f"{1e3 * (meta['t1'] - meta['t0']):.3g} ms (red brighter, blue darker), and its label"
        )
        panels = _polarity(sample.events.sum(0)), _label(sample.labels)
        shown.append(Picture(f"window_{number}", caption, _side_by_side(*panels)))
    return shown


def build_predictions(model: Module, windows: Windows, device: torch.device) -> Predictions:
    """Predictions and scores of windows spread over a split. One forward pass. Collective."""
    samples: list[Sample] = few_samples(windows, SHOWN)
    batch = placed(collate(samples), device)
    loss, maps = model(batch["events"], batch["mask"], measure=True)
    rows = []
    drawn = []
    for row, sample in enumerate(samples):
        one = slice(row, row + 1)
        scores = metric.scores({"loss": loss, **metric.overlap(maps[one], batch["mask"][one])})
        rows.append(
            (sample_name(sample), sample.meta["events"], *(scores[name] for name in SCORES))
        )
        predicted = _label((maps[row, 1] > maps[row, 0]).cpu().numpy().astype(np.int64))
        predicted[(sample.labels != 0) & (sample.labels != 1)] = _GREY
        panels = _polarity(sample.events.sum(0)), _label(sample.labels), predicted
        caption = f"{sample_name(sample)}: input, target, prediction"
        drawn.append(Picture(f"window_{row + 1}", caption, _side_by_side(*panels)))
    heads = [name.removeprefix("val_") for name in SCORES]
    return Predictions(("window", "events", *heads), rows, drawn)


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


@dataclass(frozen=True)
class TrainedOnEvents:
    """What the model was trained on, as far as predictions depend on it."""

    window_ms: float
    """Median length of the windows, in ms."""
    sensor: Sides
    """Height and width."""


def predict(task: Any, model: Module, path: Path) -> Iterator[Prediction]:
    """The mask of each window of the recordings at `path`, of the length of those in training.

    As PNG: 255 foreground, 0 background; of an encoder its features, with the cells of a grid, row
    by row, as tokens. `task` is the one of the family. Masks and frames are not read. Raises
    DataError.
    """
    names = DistinctNames()
    trained = task.trained
    factor = task.downsample
    with input_errors():
        known = known_files(existing_path(str(path), "; ".join(FORMATS)), recognize, FORMATS)
    for name, (file, form) in known.items():
        title = name.removesuffix(file.suffix)
        start = names.of(title)
        with input_errors():
            given = trained.window_ms, task.data_settings.sensor, trained.sensor
            recording = open_recording(file, title, form, *given)
            if not len(recording.windows):
                raise DataError(
                    f"'{file.name}' is shorter than a window of {trained.window_ms:.4g} ms",
                    where=str(file),
                    allowed="a recording of at least one window of the length in training",
                )
        grid = recording.sensor[0] // factor, recording.sensor[1] // factor
        for number, window in enumerate(recording.windows):
            events = recording.events(number)
            coarse = events.downsampled(factor, *grid)
            voxels = normalize(voxelize(coarse, window[0], window[1], (BINS, *grid)))
            begin, end = (window / recording.second).tolist()
            text = f"{title}, {begin:.3f} to {end:.3f} s: {len(events):,} events"
            x = torch.from_numpy(voxels)[None].to(task.context.device)
            name = f"{start}-{number:05d}"
            with torch.no_grad():
                x = task.part(model)(x).float().cpu()
            if task.stage == "encoder":
                more = {"grid": np.array(x.shape[2:])}
                yield features_file(name, text, [text], x.flatten(2).mT.numpy(), more=more)
            else:
                mask = (x[0, 1] > x[0, 0]).numpy()
                image = png(Image.fromarray(mask.astype(np.uint8) * 255))
                yield Prediction(name, f"{text}, foreground {mask.mean():.1%}", {".png": image})
    yield from passed_over(path, [file for file, _ in known.values()])
