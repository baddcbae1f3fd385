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
from models.common.predictions import DistinctNames, features_file, input_errors, passed_over, png
from models.event_seg.config import BINS
from models.event_seg.formats import FORMATS, recognize
from models.event_seg.readers.files import open_recording
from models.event_seg.windows import normalize, voxelize


@dataclass(frozen=True)
class TrainedOnEvents:
    """What the model was trained on, as far as predictions depend on it."""

    window_ms: float
    """Median length of the windows, in ms."""
    sensor: tuple[int, int]
    """Height and width."""


def predict(
    model: Module,
    path: Path,
    trained: TrainedOnEvents,
    sensor: Sequence[int] | None,
    factor: int,
    is_encoder: bool,
) -> Iterator[Prediction]:
    """The mask of each window of the recordings at `path`, of the length of those in training.

    As PNG: 255 foreground, 0 background; of an encoder its features, with the cells of a grid, row
    by row, as tokens. `sensor`: height and width for RAW files without them. Masks and frames are
    not read. Raises DataError.
    """
    names, device = DistinctNames(), next(model.parameters()).device
    with input_errors():
        source = data_files.existing_path(str(path), "; ".join(FORMATS))
        known = [(file, form) for file in data_files.files(source) if (form := recognize(file))]
        if not known:
            raise data_files.unknown_format(path, FORMATS)
    for file, form in known:
        name = file.relative_to(source) if source.is_dir() else Path(file.name)
        title = name.with_suffix("").as_posix()
        start = names.of(title)
        with input_errors():
            recording = open_recording(file, title, form, trained.window_ms, sensor, trained.sensor)
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
            inputs = torch.from_numpy(voxels)[None].to(device)
            yield _prediction(model, inputs, f"{start}-{number:05d}", text, is_encoder)
    yield from passed_over(path, [file for file, _ in known])


@torch.no_grad()
def _prediction(model: Module, x: torch.Tensor, name: str, text: str, is_encoder: bool) -> Prediction:
    if is_encoder:
        for layer in model.down:  # type: ignore[union-attr]
            x = layer(x)
        tokens = x.flatten(2).mT.float().cpu().numpy()
        return features_file(name, text, [text], tokens, more={"grid": np.array(x.shape[2:])})
    maps = model(x)[0]
    mask = (maps[1] > maps[0]).cpu().numpy()
    image = png(Image.fromarray(mask.astype(np.uint8) * 255))
    return Prediction(name, f"{text}, foreground {mask.mean():.1%}", {".png": image})
