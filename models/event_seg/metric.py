"""What is measured on a split: overlap with the labels, or how well hidden events are told."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.event_seg.network import IGNORE


class EdgeMetric:
    """Loss, and overlap of the pixels that are told as foreground with those that are."""

    names = ("loss", "both", "one", "other", "pixels")

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Summed loss, pixels that are foreground in both, in the prediction alone and in the label
        alone, and all that count; float64."""
        loss, maps = model(batch["events"], batch["mask"], measure=True)
        return self.counts(loss, maps, batch)

    def counts(self, loss: Tensor, maps: Tensor, batch: Batch) -> Tensor:
        """See update; of what the model gave, [batch, 2, height, width]."""
        told, label = maps[:, 1] > maps[:, 0], batch["mask"]
        counted = label != IGNORE
        told, true = told & counted, label == 1
        return _vector(loss, told & true, told & ~true, true & ~told, counted)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts.

        A ratio without anything below its line is 1 if nothing was told and nothing is there,
        otherwise 0. `all_foreground_iou` is what calling every pixel foreground would give: chance.
        """
        loss, both, one, other, pixels = counts.tolist()
        empty = float(one == 0 and other == 0)

        def ratio(above: float, below: float) -> float:
            return above / below if below else empty

        return {
            "val_loss": ratio(loss, pixels),
            "val_iou": ratio(both, both + one + other),
            "precision": ratio(both, both + one),
            "recall": ratio(both, both + other),
            "f1": ratio(2 * both, 2 * both + one + other),
            "all_foreground_iou": ratio(both + other, pixels),
        }


class MassMetric:
    """Loss, and the share of the variance on hidden pixels that is told."""

    names = ("loss", "error", "variance", "pixels")

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Summed loss; on hidden pixels squared error, squared deviation from the mean of what is
        seen of the sample, and how many there are; float64."""
        loss, maps = model(batch["events"], batch["mass"], batch["hidden"], measure=True)
        return self.counts(loss, maps, batch)

    def counts(self, loss: Tensor, maps: Tensor, batch: Batch) -> Tensor:
        """See update; of what the model gave, [batch, 2, height, width]."""
        hidden, mass = batch["hidden"], batch["mass"]
        if maps.device.type == "mps":  # has no float64
            hidden, mass, maps, loss = hidden.cpu(), mass.cpu(), maps.cpu(), loss.cpu()
        counted, seen, mass = hidden[:, None], (~hidden[:, None]).double(), mass.double()
        count = seen.sum((2, 3), keepdim=True).clamp(min=1)
        mean = (mass * seen).sum((2, 3), keepdim=True) / count
        error = (maps.double() - mass).square() * counted
        variance = (mass - mean).square() * counted
        return _vector(loss, error, variance, hidden)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts.

        `val_masked_r2` is 1 where hidden mass is told exactly and 0 where telling the mean of what
        is seen of a sample would do as well.
        """
        loss, error, variance, pixels = counts.tolist()
        r2 = 1 - error / variance if variance else 0.0
        return {"val_loss": loss / pixels if pixels else 0.0, "val_masked_r2": r2}


def _vector(*parts: Tensor) -> Tensor:
    if parts[0].device.type == "mps":
        parts = tuple(part.cpu() for part in parts)
    return torch.stack([part.double().sum() for part in parts])
