"""Masks, or features of an encoder, for the windows of recordings without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import Module

from models.base import DataError, Prediction
from models.common import data_files
from models.common.predictions import DistinctNames, features_file, input_errors, png
from models.event_seg.config import BINS
from models.event_seg.formats import FORMATS, MVSEC, recognize
from models.event_seg.readers.mvsec import MvsecRecording
from models.event_seg.readers.prophesee import RawRecording
from models.event_seg.windows import normalize, voxelize

Unlabeled = RawRecording | MvsecRecording


@dataclass(frozen=True)
class TrainedOnEvents:
    """What the model was trained on, as far as predictions depend on it."""

    window_ms: float
    """Median length of the windows, in ms."""
    sensor: tuple[int, int]
    """Height and width."""


@dataclass(frozen=True)
class Window:
    """A window of a recording without labels."""

    name: str
    """Of its files."""
    title: str
    """The recording and the time, for the user."""
    events: torch.Tensor
    """The input of the model, [1, bin, height, width], on its device."""


def windows(
    path: Path, trained: TrainedOnEvents, sensor: Sequence[int] | None, downsample: int, device: torch.device
) -> Iterator[Window]:
    """The windows of the recordings at `path`, of the length of those in training.

    `sensor`: height and width for RAW files without them. Masks and frames are not read. Raises
    DataError.
    """
    names = DistinctNames()
    for name, recording in _recordings(path, trained, sensor):
        start = names.of(name)
        for window in range(len(recording.windows)):
            with input_errors():
                events, count = _voxels(recording, window, downsample)
            begin, end = (recording.windows[window] / recording.second).tolist()
            yield Window(
                f"{start}-{window:05d}",
                f"{name}, {begin:.3f} to {end:.3f} s: {count:,} events",
                torch.from_numpy(events)[None].to(device),
            )


@torch.no_grad()
def masks(model: Module, windows: Iterator[Window]) -> Iterator[Prediction]:
    """The mask of each window, as PNG: 255 foreground, 0 background."""
    for window in windows:
        maps = model(window.events)[0]
        mask = (maps[1] > maps[0]).cpu().numpy()
        text = f"{window.title}, foreground {mask.mean():.1%}"
        yield Prediction(window.name, text, {".png": png(Image.fromarray(mask.astype(np.uint8) * 255))})


@torch.no_grad()
def features(model: Module, windows: Iterator[Window]) -> Iterator[Prediction]:
    """The features of each window: its tokens are the cells of a grid, row by row."""
    for window in windows:
        x = window.events
        for layer in model.down:  # type: ignore[union-attr]
            x = layer(x)
        tokens = x.flatten(2).mT.float().cpu().numpy()
        grid = {"grid": np.array(x.shape[2:])}
        yield features_file(window.name, window.title, [window.title], tokens, more=grid)


def _recordings(
    path: Path, trained: TrainedOnEvents, sensor: Sequence[int] | None
) -> Iterator[tuple[str, Unlabeled]]:
    """The recordings of a file or folder, opened one by one, with their names without a suffix."""
    with input_errors():
        source = data_files.existing_path(str(path), "; ".join(FORMATS))
        known = [(file, form) for file in data_files.files(source) if (form := recognize(file))]
        if not known:
            raise data_files.unknown_format(path, FORMATS)
    for file, form in known:
        name = (file.relative_to(source) if source.is_dir() else Path(file.name)).with_suffix("")
        with input_errors():
            recording = _open(file, name.as_posix(), form, trained, sensor)
        yield name.as_posix(), recording


def _open(
    file: Path, name: str, form: str, trained: TrainedOnEvents, sensor: Sequence[int] | None
) -> Unlabeled:
    recording: Unlabeled
    if form == MVSEC:
        recording = MvsecRecording(file, name, trained.window_ms, trained.sensor)
    else:
        recording = RawRecording(file, name, trained.window_ms, sensor, has_labels=False)
        extent, sensor_of_run = recording.sensor, trained.sensor
        is_inside = extent[0] <= sensor_of_run[0] and extent[1] <= sensor_of_run[1]
        if recording.sensor_source == "events" and is_inside:
            recording.sensor = sensor_of_run
    if not len(recording.windows):
        raise DataError(
            f"'{file.name}' is shorter than a window of {trained.window_ms:.4g} ms",
            where=str(file),
            allowed="a recording of at least one window of the length in training",
        )
    return recording


def _voxels(recording: Unlabeled, window: int, factor: int) -> tuple[np.ndarray, int]:
    """The input of the model for a window, [bin, height, width], and the number of its events."""
    events, (height, width) = recording.events(window), recording.sensor
    if len(events) and (
        min(events.x.min(), events.y.min()) < 0 or events.y.max() >= height or events.x.max() >= width
    ):
        raise DataError(
            f"events of '{recording.name}' extend to {events.y.max() + 1}×{events.x.max() + 1}",
            where=f"window {window}",
            allowed=f"events within the sensor, {height}×{width}",
        )
    grid = height // factor, width // factor
    start, stop = recording.windows[window]
    inside = events.downsampled(factor, *grid)
    return normalize(voxelize(inside, start, stop, (BINS, *grid))), len(events)
