"""Statistics of the training patients: scales of inputs and targets, class weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.abr.config import CLASSES
from models.abr.responses import Responses
from models.base import DataError
from models.common.split import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

FILE = "statistics.json"
_AT_ONCE = 65536
"""Responses in memory at once."""
Pair = tuple[float, float]


@dataclass(frozen=True)
class Statistics:
    """Fitted on training patients; saved in the run folder and as buffers of the model."""

    signal_rms: float = 1.0
    """RMS over all points of all responses, in µV."""
    static_mean: tuple[float, ...] = (0.0,) * 4
    static_scale: tuple[float, ...] = (1.0,) * 4
    latency: Pair = (0.0, 1.0)
    """Mean and standard deviation, in ms."""
    amplitude: Pair = (0.0, 1.0)
    """Mean and standard deviation, in µV."""
    class_weight: tuple[float, ...] = (1.0,) * CLASSES
    """Inversely proportional to the class frequency, 1 on average; 1 for absent classes."""

    def tensors(self) -> dict[str, Tensor]:
        """Each value as a tensor, for the buffers of a model."""
        import torch

        return {name: torch.tensor(value) for name, value in asdict(self).items()}


def fit(responses: Responses, train: NDArray[np.int64]) -> Statistics:
    """The statistics of the responses with the indices `train`, in float64."""
    square = sum(
        float(np.square(responses.signal[train[at : at + _AT_ONCE]], dtype=np.float64).sum())
        for at in range(0, len(train), _AT_ONCE)
    )
    rms = np.sqrt(square / (len(train) * responses.signal.shape[1]))
    static = [_moments(column) for column in responses.static[train].T]
    target = responses.target[train]
    return Statistics(
        float(rms) or 1.0,
        tuple(mean for mean, _ in static),
        tuple(scale for _, scale in static),
        _moments(responses.labels["latency"][train]),
        _moments(responses.labels["amplitude"][train]),
        class_weights(np.bincount(target[target >= 0], minlength=CLASSES)),
    )


def class_weights(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """n / (number of present classes × n of the class): the mean weight of a sample is 1."""
    present = max(1, int((counts > 0).sum()))
    return tuple(float(counts.sum() / (present * n)) if n else 1.0 for n in counts)


def load_or_fit(responses: Responses, train: NDArray[np.int64], folder: Path | None) -> Statistics:
    """The statistics saved in the run folder; if there are none, fit and save them."""
    if folder is not None and (folder / FILE).exists():
        return load(folder)
    found = fit(responses, train)
    if folder is not None:
        atomic_write(folder / FILE, json.dumps(asdict(found), indent=1))
    return found


def load(folder: Path) -> Statistics:
    """The statistics saved in a run folder. Reads the disk. Raises DataError."""
    path = folder / FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in saved.items()
        }
        return Statistics(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(folder.absolute()),
            allowed="the file as the run wrote it",
        ) from None


def _moments(column: NDArray[np.float32]) -> Pair:
    """Mean and standard deviation of the known values; without any: 0 and 1. Never deviation 0."""
    known = column[np.isfinite(column)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0
