"""The metrics of a split, from counts and sums that add up exactly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from gearshift.models.abr.config import CLASS_NAMES, CLASSES
from gearshift.models.abr.loss import TermSums, labels, units
from gearshift.models.base import Batch
from gearshift.models.common.family import Scores

BINS = 4096
"""Histogram bins of the logit of a wave V; two responses in one bin are a tie."""
_FINEST = 1000.0
_WIDEST = 17.0
"""A bin is 0.000008 wide at 0, and 0.8 % of the logit far from it, up to 10,000: probabilities of a
confident model, which are all near 0 or 1, would share bins."""


def measure(
    sums: TermSums,
    model: Module,
    batch: Batch,
) -> dict[str, tuple[Tensor, int, Tensor]]:
    """By term, its loss, its units and its counts in `batch`; one forward pass."""
    outputs = model(batch["signal"], batch["static"])
    losses = sums(outputs, batch)
    known = units(batch, outputs)
    measured = {}
    for term, output in outputs.items():
        measured[term] = (losses[term], known[term], counts(term, output.float(), batch))
    return measured


def scores(
    weights: Mapping[str, float],
    sums: Mapping[str, Tensor],
) -> Scores:
    """The metrics of the sums of `measure`; None if the split lacks the labels.

    `val_loss` has every term at its weight of `weights`, at any stage of the curriculum.
    """
    loss = 0.0
    metrics: Scores = {}
    for term, values in sums.items():
        total, known = values[:2].tolist()
        loss += weights[term] * total / max(1, known)
        metrics |= term_scores(term, values[2:])
    return {"val_loss": loss, **metrics}


def term_scores(
    term: str,
    counted: Tensor,
) -> Scores:
    """The metrics of a term by what `counts` adds up to."""
    if term == "class":
        return macro_f1(counted.view(CLASSES, CLASSES))
    if term == "exists":
        return {BEST[term]: auroc(counted[:BINS], counted[BINS:])}
    error, count = counted.tolist()
    return {BEST[term]: error / count if count else None}


def macro_f1(confusion: Tensor) -> Scores:
    """F1 of each class that occurs in the split, and their mean, which a perfect model has at 1.

    `confusion` [true, predicted]; `absent_classes` counts the classes that do not occur.
    """
    right = confusion.diagonal()
    true = confusion.sum(1)
    predicted = confusion.sum(0)
    present = true > 0  # an absent class would have an F1 of 0 at best
    f1 = (2 * right / (true + predicted).clamp(min=1))[present]
    recall = (right / true.clamp(min=1))[present]
    names = list(compress(CLASS_NAMES, present))
    return {
        "val_macro_f1": float(f1.mean()) if names else None,
        "val_balanced_accuracy": float(recall.mean()) if names else None,
        "absent_classes": float((~present).sum()),
        **{f"f1_{name}": float(value) for name, value in zip(names, f1, strict=True)},
    }


def auroc(
    without: Tensor,
    having: Tensor,
) -> float | None:
    """The probability that a response with a wave V has a higher bin than one without.

    Both arguments count responses by bin; a tie counts half. None if one of them is empty.
    """
    pairs = without.sum() * having.sum()
    if not pairs:
        return None
    below = without.cumsum(0) - without
    return float((having * (below + without / 2)).sum() / pairs)


BEST = {
    "signal": "val_signal_mse",
    "exists": "val_exists_auroc",
    "class": "val_macro_f1",
    "latency": "val_latency_mae_ms",
    "amplitude": "val_amplitude_mae_uv",
    "threshold": "val_threshold_mae_db",
}
"""The metric of each term, of classes the first one."""


def counts(
    term: str,
    output: Tensor,
    batch: Batch,
) -> Tensor:
    """What a term adds: the confusion matrix [true, predicted] of classes, flat; of the existence
    two histograms of the logit, without and with wave V; else summed errors and their number.
    """
    target, known = labels(batch, term)
    if term == "signal":
        error = F.mse_loss(output, target, reduction="none").mean((1, 2))
        return torch.stack([error.sum(), torch.ones_like(error).sum()])
    if term == "class":
        cell = target * CLASSES + output.argmax(-1)
        return torch.bincount(cell[known], minlength=CLASSES**2)
    if term == "exists":
        place = torch.asinh(_FINEST * output) / _WIDEST  # from -1 to 1
        bins = (BINS * (1 + place.nan_to_num()) / 2).long().clamp(0, BINS - 1)
        cell = bins + BINS * target.long()
        return torch.bincount(cell[known], minlength=2 * BINS)
    errors = (output - target).abs() * known
    return torch.stack([errors.sum(), known.sum()])
