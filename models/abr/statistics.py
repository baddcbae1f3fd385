"""What is fitted on the training patients: scales of inputs and targets, weights of classes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.abr.config import CLASSES
from models.abr.responses import Responses
from models.common.split import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

FILE = "statistics.json"
_AT_ONCE = 65536
"""Responses that are in memory together."""
Pair = tuple[float, float]


@dataclass(frozen=True)
class Statistics:
    """Fitted on training patients, kept in the run folder, and with the weights."""

    signal_rms: float = 1.0
    """In µV, over all points of all responses."""
    static_mean: tuple[float, ...] = (0.0,) * 4
    static_scale: tuple[float, ...] = (1.0,) * 4
    latency: Pair = (0.0, 1.0)
    """Mean and standard deviation, in ms."""
    amplitude: Pair = (0.0, 1.0)
    """Mean and standard deviation, in µV."""
    class_weight: tuple[float, ...] = (1.0,) * CLASSES
    """In inverse proportion to how often a class is, 1 on average; 1 for those that are absent."""

    def tensors(self) -> dict[str, Tensor]:
        """Each number as a tensor, for the buffers of a model."""
        import torch

        return {name: torch.tensor(value) for name, value in asdict(self).items()}


def fit(responses: Responses, train: NDArray[np.int64]) -> Statistics:
    """The statistics of the responses at `train`, in float64."""
    square = sum(
        float(np.square(responses.signal[train[at : at + _AT_ONCE]], dtype=np.float64).sum())
        for at in range(0, len(train), _AT_ONCE)
    )
    rms = np.sqrt(square / (len(train) * responses.signal.shape[1]))
    static = [_moments(column) for column in responses.static[train].T]
    return Statistics(
        float(rms) or 1.0,
        tuple(mean for mean, _ in static),
        tuple(scale for _, scale in static),
        _moments(responses.labels["latency"][train]),
        _moments(responses.labels["amplitude"][train]),
        class_weights(np.bincount(_known(responses.target[train]), minlength=CLASSES)),
    )


def class_weights(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """n / (classes present × n of the class), so that the weights of all samples have mean 1."""
    present = max(1, int((counts > 0).sum()))
    return tuple(float(counts.sum() / (present * n)) if n else 1.0 for n in counts)


def load_or_fit(responses: Responses, train: NDArray[np.int64], folder: Path | None) -> Statistics:
    """What the run folder keeps, as the weights were trained with it; or fitted, and kept there."""
    path = None if folder is None else folder / FILE
    if path is not None and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()
        }
        return Statistics(**values)
    found = fit(responses, train)
    if path is not None:
        atomic_write(path, json.dumps(asdict(found), indent=1))
    return found


def _moments(column: NDArray[np.float32]) -> Pair:
    """Mean and standard deviation of what is known; 0 and 1 where nothing is, or nothing varies."""
    known = column[np.isfinite(column)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def _known(target: NDArray[np.int64]) -> NDArray[np.int64]:
    return target[target >= 0]
