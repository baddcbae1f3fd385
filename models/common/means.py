"""Metrics that are means: a sum and a count each, which add up exactly over batches and ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch

Measure = Callable[[Module, Batch], Mapping[str, tuple[Tensor, Tensor | int]]]


class Means:
    """Each metric is the sum of its numerators over that of its denominators."""

    def __init__(self, names: Sequence[str], measure: Measure):
        """`measure` gives for each of `names` what a batch adds to its sum, and to its count."""
        self.names, self.measure = tuple(names), measure

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Sum and count of each metric, in the order of `names`, float64.

        Raises KeyError where a metric was not measured.
        """
        found = self.measure(model, batch)
        pairs = [pair for name in self.names for pair in found[name]]
        device = next((x.device for x in pairs if isinstance(x, Tensor)), None)
        if device is not None and device.type == "mps":  # has no float64
            device = torch.device("cpu")
        return torch.stack(
            [torch.as_tensor(x).detach().to(device=device).to(torch.float64) for x in pairs]
        )

    def result(self, counts: Tensor) -> dict[str, float]:
        """The means by name; NaN where nothing was counted."""
        sums, weights = counts[0::2], counts[1::2]
        return dict(zip(self.names, (sums / weights).tolist(), strict=True))
