"""The metrics of a split, from counts and sums that add up exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from models.abr.config import CLASS_NAMES, CLASSES
from models.abr.loss import TermSums, units
from models.base import Batch
from models.common.masked_series import MaskedSeries, interpolated

BINS = 512
"""Histogram bins of the probability of a wave V; two responses in one bin are a tie."""
Scores = dict[str, float | None]
"""Metrics by name; None: undefined."""


class ResponseMetric:
    """Sums and units of each loss term, and its metrics; one forward pass per batch."""

    def __init__(self, sums: TermSums, weights: Mapping[str, float]) -> None:
        """`weights`: loss weights of the measured terms, in order."""
        self.sums, self.weights = sums, weights

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds to the counts: float64, of constant length.

        Raises KeyError if the model has no output for a term.
        """
        outputs = model(batch["signal"], batch["static"])
        sums, known = self.sums(outputs, batch), units(batch, self.weights)
        parts = [torch.stack([sums[term].cpu() for term in self.weights])]
        parts.append(torch.tensor([known[term] for term in self.weights]))
        parts += [_COUNTERS[term](outputs[term].float(), batch) for term in self.weights]
        return torch.cat([part.cpu().double() for part in parts])  # mps has no float64

    def result(self, counts: Tensor) -> Scores:
        """The metrics of the summed counts; None if the split lacks the labels.

        `val_loss` has every term at full weight, at any stage of the curriculum.
        """
        terms = len(self.weights)
        sums, known = counts[:terms], counts[terms : 2 * terms]
        weights = torch.tensor(list(self.weights.values()), dtype=torch.float64)
        metrics: Scores = {"val_loss": float((weights * sums / known.clamp(min=1)).sum())}
        rest = counts[2 * terms :]
        for term in self.weights:
            term_counts, rest = rest[: _LENGTHS[term]], rest[_LENGTHS[term] :]
            metrics |= _RESULTS[term](term_counts)
        return metrics


MASKED = MaskedSeries(
    predict=lambda model, batch: model(batch["seen"], batch["static"], batch["hidden"]),
    target=lambda batch: (batch["signal"], batch["hidden"][:, None]),
    lines=lambda batch: interpolated(batch["seen"].mT, ~batch["hidden"]).mT,
)


def macro_f1(confusion: Tensor) -> Scores:
    """F1 of each class that occurs in the split, and their mean, which a perfect model has at 1.

    `confusion` [true, predicted]; `absent_classes` counts the classes that do not occur.
    """
    right, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    present = true > 0
    f1 = (2 * right / (true + predicted).clamp(min=1))[present]
    recall = (right / true.clamp(min=1))[present]
    names = [name for name, occurs in zip(CLASS_NAMES, present.tolist(), strict=True) if occurs]
    return {
        "val_macro_f1": float(f1.mean()) if names else None,
        "val_balanced_accuracy": float(recall.mean()) if names else None,
        "absent_classes": float((~present).sum()),
        **{f"f1_{name}": float(value) for name, value in zip(names, f1, strict=True)},
    }


def auroc(without: Tensor, having: Tensor) -> float | None:
    """The probability that a response with a wave V has a higher bin than one without.

    Both arguments count responses by bin; a tie counts half. None if one of them is empty.
    """
    pairs = without.sum() * having.sum()
    if not pairs:
        return None
    below = without.cumsum(0) - without
    return float((having * (below + without / 2)).sum() / pairs)


def _count_signal(output: Tensor, batch: Batch) -> Tensor:
    error = F.mse_loss(output, batch["signal"], reduction="none").mean((1, 2))
    return torch.stack([error.sum(), torch.ones_like(error).sum()])


def _count_exists(output: Tensor, batch: Batch) -> Tensor:
    """Two histograms of the probability: without and with wave V."""
    bins = (output.sigmoid() * BINS).long().clamp(max=BINS - 1) + BINS * batch["exists"].long()
    return torch.bincount(bins[batch["exists_mask"]], minlength=2 * BINS)


def _count_class(output: Tensor, batch: Batch) -> Tensor:
    """The confusion matrix [true, predicted], flat."""
    target = batch["target"]
    cell = target * CLASSES + output.argmax(-1)
    return torch.bincount(cell[target >= 0], minlength=CLASSES**2)


def _count_error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([((output - target).abs() * mask).sum(), mask.sum()])


def _mean_as(name: str) -> Callable[[Tensor], Scores]:
    return lambda counts: {name: float(counts[0] / counts[1]) if counts[1] else None}


_LENGTHS = {
    **dict.fromkeys(("signal", "latency", "amplitude", "threshold"), 2),
    "exists": 2 * BINS,
    "class": CLASSES**2,
}
_COUNTERS: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "signal": _count_signal,
    "exists": _count_exists,
    "latency": lambda x, b: _count_error(x, b["peak"][:, 0], b["peak_mask"][:, 0]),
    "amplitude": lambda x, b: _count_error(x, b["peak"][:, 1], b["peak_mask"][:, 1]),
    "class": _count_class,
    "threshold": lambda x, b: _count_error(x, b["threshold"], b["threshold_mask"]),
}
_RESULTS: dict[str, Callable[[Tensor], Scores]] = {
    "signal": _mean_as("val_signal_mse"),
    "exists": lambda counts: {"val_exists_auroc": auroc(counts[:BINS], counts[BINS:])},
    "latency": _mean_as("val_latency_mae_ms"),
    "amplitude": _mean_as("val_amplitude_mae_uv"),
    "class": lambda counts: macro_f1(counts.view(CLASSES, CLASSES)),
    "threshold": _mean_as("val_threshold_mae_db"),
}
