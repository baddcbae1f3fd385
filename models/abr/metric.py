"""What is measured on a split, as counts and sums that add up exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from models.abr.config import CLASSES
from models.abr.loss import TermSums, units
from models.abr.responses import CLASS_NAMES
from models.base import Batch

BINS = 512
"""Of the probability that there is a wave V; two in one bin count as a tie."""


class ResponseMetric:
    """The sums and units of each term, and what is counted of it; one forward pass a batch."""

    def __init__(self, sums: TermSums, weights: Mapping[str, float]) -> None:
        """`weights`, of the loss, name the terms that are measured, in their order."""
        self.sums, self.weights = sums, weights

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds: float64, of the same length for every batch.

        Raises KeyError where the model tells nothing of a term.
        """
        told = model(batch["signal"], batch["static"])
        sums, known = self.sums(told, batch), units(batch, self.weights)
        parts = [torch.stack([sums[term].cpu() for term in self.weights])]
        parts.append(torch.tensor([known[term] for term in self.weights]))
        parts += [_COUNT[term](told[term].float(), batch) for term in self.weights]
        return torch.cat([part.cpu().double() for part in parts])  # mps has no float64

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts; NaN where nothing of a term was known.

        `val_loss` has every term at its full weight, however far the curriculum is.
        """
        terms = len(self.weights)
        sums, known = counts[:terms], counts[terms : 2 * terms]
        weights = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        metrics = {"val_loss": float((weights * sums / known.clamp(min=1)).sum())}
        rest = counts[2 * terms :]
        for term in self.weights:
            mine, rest = rest[: _LENGTH[term]], rest[_LENGTH[term] :]
            metrics |= _TELL[term](mine)
        return metrics


def macro_f1(confusion: Tensor) -> dict[str, float]:
    """F1 of each class and their mean, over all five; a class that is absent has 0.

    `confusion` [true, told]. Absent is what neither is nor was told; `absent_classes` counts those
    that are not in the split.
    """
    right, there, told = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    f1 = 2 * right / (there + told).clamp(min=1)
    present = there > 0
    recall = (right / there.clamp(min=1))[present]
    metrics = {
        "val_macro_f1": float(f1.mean()),
        "val_balanced_accuracy": float(recall.mean()) if present.any() else nan,
        "absent_classes": float((~present).sum()),
    }
    return metrics | {
        f"f1_{name}": float(value) for name, value in zip(CLASS_NAMES, f1, strict=True)
    }


def auroc(without: Tensor, having: Tensor) -> float:
    """The chance that a response with a wave V has a higher bin than one without; a tie is half.

    Both count responses by bin of the probability. NaN where one of them is empty.
    """
    pairs = without.sum() * having.sum()
    if not pairs:
        return nan
    below = without.cumsum(0) - without
    return float((having * (below + without / 2)).sum() / pairs)


def _count_signal(told: Tensor, batch: Batch) -> Tensor:
    error = F.mse_loss(told, batch["signal"], reduction="none").mean((1, 2))
    return torch.stack([error.sum(), torch.ones_like(error).sum()])


def _count_exists(told: Tensor, batch: Batch) -> Tensor:
    """Two histograms [without, having] of the probability."""
    place = (told.sigmoid() * BINS).long().clamp(max=BINS - 1) + BINS * batch["exists"].long()
    return torch.bincount(place[batch["exists_mask"]], minlength=2 * BINS)


def _count_class(told: Tensor, batch: Batch) -> Tensor:
    """The confusion matrix, rows true and columns told."""
    target = batch["target"]
    place = target * CLASSES + told.argmax(-1)
    return torch.bincount(place[target >= 0], minlength=CLASSES**2)


def _count_error(told: Tensor, goal: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([((told - goal).abs() * mask).sum(), mask.sum()])


def _mean_as(name: str) -> Callable[[Tensor], dict[str, float]]:
    return lambda counts: {name: float(counts[0] / counts[1])}


_LENGTH = {
    **dict.fromkeys(("signal", "latency", "amplitude", "threshold"), 2),
    "exists": 2 * BINS,
    "class": CLASSES**2,
}
_COUNT: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "signal": _count_signal,
    "exists": _count_exists,
    "latency": lambda x, b: _count_error(x, b["peak"][:, 0], b["peak_mask"][:, 0]),
    "amplitude": lambda x, b: _count_error(x, b["peak"][:, 1], b["peak_mask"][:, 1]),
    "class": _count_class,
    "threshold": lambda x, b: _count_error(x, b["threshold"], b["threshold_mask"]),
}
_TELL: dict[str, Callable[[Tensor], dict[str, float]]] = {
    "signal": _mean_as("val_signal_mse"),
    "exists": lambda counts: {"val_exists_auroc": auroc(counts[:BINS], counts[BINS:])},
    "latency": _mean_as("val_latency_mae_ms"),
    "amplitude": _mean_as("val_amplitude_mae_uv"),
    "class": lambda counts: macro_f1(counts.view(CLASSES, CLASSES)),
    "threshold": _mean_as("val_threshold_mae_db"),
}
