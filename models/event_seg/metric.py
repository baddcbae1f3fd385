"""Metrics of a split: overlap with the labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import Module

from gearshift.models.base import Batch
from gearshift.models.common.family import Scores
from gearshift.models.event_seg.network import IGNORE


def measure(
    model: Module,
    batch: Batch,
) -> dict[str, Tensor]:
    """The summed loss of `batch`, and its foreground pixels by where they are."""
    loss, maps = model(batch["events"], batch["mask"], measure=True)
    return {"loss": loss, **overlap(maps, batch["mask"])}


def overlap(
    maps: Tensor,
    label: Tensor,
) -> dict[str, Tensor]:
    """Foreground pixels of the prediction `maps` [batch, 2, height, width] and of the label."""
    counted = label != IGNORE
    predicted = (maps[:, 1] > maps[:, 0]) & counted
    true = label == 1
    return {
        "both": (predicted & true).sum(),
        "predicted_only": (predicted & ~true).sum(),
        "label_only": (true & ~predicted).sum(),
        "pixels": counted.sum(),
    }


def scores(sums: Mapping[str, Tensor]) -> Scores:
    """Metrics of the sums of `measure`.

    A ratio with denominator 0 is 1 if neither prediction nor label has foreground, otherwise 0.
    `all_foreground_iou` is chance: the IoU of predicting foreground everywhere.
    """
    loss, both, predicted_only, label_only, pixels = map(float, sums.values())
    wrong = predicted_only + label_only
    ratios = {
        "val_loss": (loss, pixels),
        "val_iou": (both, both + wrong),
        "precision": (both, both + predicted_only),
        "recall": (both, both + label_only),
        "f1": (2 * both, 2 * both + wrong),
        "all_foreground_iou": (both + label_only, pixels),
    }
    empty = float(wrong == 0)
    return {name: total / count if count else empty for name, (total, count) in ratios.items()}
