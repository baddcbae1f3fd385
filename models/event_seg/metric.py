"""Metrics of a split: overlap with the labels, or explained variance of hidden events."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.event_seg.network import IGNORE


class EdgeMetric:
    """Loss, and overlap of predicted and labeled foreground pixels."""

    names = ("loss", "both", "predicted_only", "label_only", "pixels")

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Counts of `batch` in the order of `names`: summed loss and foreground pixels; float64."""
        loss, maps = model(batch["events"], batch["mask"], measure=True)
        return self.counts(loss, maps, batch)

    def counts(self, loss: Tensor, maps: Tensor, batch: Batch) -> Tensor:
        """Counts from the model output `maps` [batch, 2, height, width]; see update."""
        predicted, label = maps[:, 1] > maps[:, 0], batch["mask"]
        counted = label != IGNORE
        predicted, true = predicted & counted, label == 1
        return _vector(loss, predicted & true, predicted & ~true, true & ~predicted, counted)

    def result(self, counts: Tensor) -> dict[str, float]:
        """Metrics of the summed counts.

        A ratio with denominator 0 is 1 if neither prediction nor label has foreground, otherwise 0.
        `all_foreground_iou` is chance: the IoU of predicting foreground everywhere.
        """
        loss, both, predicted_only, label_only, pixels = counts.tolist()
        empty = float(predicted_only == 0 and label_only == 0)

        def ratio(numerator: float, denominator: float) -> float:
            return numerator / denominator if denominator else empty

        return {
            "val_loss": ratio(loss, pixels),
            "val_iou": ratio(both, both + predicted_only + label_only),
            "precision": ratio(both, both + predicted_only),
            "recall": ratio(both, both + label_only),
            "f1": ratio(2 * both, 2 * both + predicted_only + label_only),
            "all_foreground_iou": ratio(both + label_only, pixels),
        }


class MassMetric:
    """Loss, and explained variance on hidden pixels."""

    names = ("loss", "error", "variance", "pixels")

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Counts of `batch` in the order of `names`, on hidden pixels; float64.

        `variance` is the squared deviation from the mean of the sample's visible pixels.
        """
        loss, maps = model(batch["events"], batch["mass"], batch["hidden"], measure=True)
        return self.counts(loss, maps, batch)

    def counts(self, loss: Tensor, maps: Tensor, batch: Batch) -> Tensor:
        """Counts from the model output `maps` [batch, 2, height, width]; see update."""
        hidden, mass = batch["hidden"], batch["mass"]
        if maps.device.type == "mps":  # has no float64
            hidden, mass, maps, loss = hidden.cpu(), mass.cpu(), maps.cpu(), loss.cpu()
        counted, visible, mass = hidden[:, None], (~hidden[:, None]).double(), mass.double()
        count = visible.sum((2, 3), keepdim=True).clamp(min=1)
        mean = (mass * visible).sum((2, 3), keepdim=True) / count
        error = (maps.double() - mass).square() * counted
        variance = (mass - mean).square() * counted
        return _vector(loss, error, variance, hidden)

    def result(self, counts: Tensor) -> dict[str, float]:
        """Metrics of the summed counts.

        `val_masked_r2` is 1 for an exact prediction of the hidden mass and 0 for predicting the
        mean of the sample's visible pixels.
        """
        loss, error, variance, pixels = counts.tolist()
        r2 = 1 - error / variance if variance else 0.0
        return {"val_loss": loss / pixels if pixels else 0.0, "val_masked_r2": r2}


def _vector(*parts: Tensor) -> Tensor:
    if parts[0].device.type == "mps":
        parts = tuple(part.cpu() for part in parts)
    return torch.stack([part.double().sum() for part in parts])
