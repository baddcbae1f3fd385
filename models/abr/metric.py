"""The metrics of a split, from counts and sums that add up exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from models.abr.config import CLASS_NAMES, CLASSES
from models.abr.loss import TermSums, labels, units
from models.base import Batch

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
        parts += [_counts(term, outputs[term].float(), batch) for term in self.weights]
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
            length = {"exists": 2 * BINS, "class": CLASSES**2}.get(term, 2)
            of_term, rest = rest[:length], rest[length:]
            if term == "class":
                metrics |= macro_f1(of_term.view(CLASSES, CLASSES))
            elif term == "exists":
                metrics["val_exists_auroc"] = auroc(of_term[:BINS], of_term[BINS:])
            else:
                error, count = of_term.tolist()
                metrics[_MEANS[term]] = error / count if count else None
        return metrics


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


_MEANS = {
    "signal": "val_signal_mse",
    "latency": "val_latency_mae_ms",
    "amplitude": "val_amplitude_mae_uv",
    "threshold": "val_threshold_mae_db",
}


def _counts(term: str, output: Tensor, batch: Batch) -> Tensor:
    """What a term adds: the confusion matrix [true, predicted] of classes, flat; of the existence
    two histograms of the probability, without and with wave V; else summed errors and their number.
    """
    if term == "signal":
        error = F.mse_loss(output, batch["signal"], reduction="none").mean((1, 2))
        return torch.stack([error.sum(), torch.ones_like(error).sum()])
    target, known = labels(batch, term)
    if term == "class":
        cell = target * CLASSES + output.argmax(-1)
        return torch.bincount(cell[known], minlength=CLASSES**2)
    if term == "exists":
        bins = (output.sigmoid() * BINS).long().clamp(max=BINS - 1) + BINS * target.long()
        return torch.bincount(bins[known], minlength=2 * BINS)
    return torch.stack([((output - target).abs() * known).sum(), known.sum()])
