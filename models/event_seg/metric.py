"""Metrics of a split: overlap with the labels."""

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
        parts: tuple[Tensor, ...] = (loss, predicted & true, predicted & ~true, true & ~predicted, counted)
        if maps.device.type == "mps":  # has no float64
            parts = tuple(part.cpu() for part in parts)
        return torch.stack([part.double().sum() for part in parts])

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
