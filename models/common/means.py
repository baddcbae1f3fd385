"""Metrics that are means: sums and counts that add up exactly over batches and ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch

Measure = Callable[[Module, Batch], Mapping[str, tuple[Tensor, Tensor | int]]]


class Means:
    """A metric for each name: the sum of its numerators divided by the sum of its counts."""

    def __init__(self, names: Sequence[str], measure: Measure):
        """`measure` returns for each name what a batch adds to its sum and to its count."""
        self.names, self.measure = tuple(names), measure

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Sum and count of each metric, in the order of `names`, float64.

        Raises KeyError where a metric was not measured.
        """
        measured = self.measure(model, batch)
        values = [value for name in self.names for value in measured[name]]
        device = next((x.device for x in values if isinstance(x, Tensor)), None)
        if device is not None and device.type == "mps":  # has no float64
            device = torch.device("cpu")
        return torch.stack(
            [torch.as_tensor(x).detach().to(device=device).to(torch.float64) for x in values]
        )

    def result(self, counts: Tensor) -> dict[str, float | None]:
        """The means by name; None where the count is 0."""
        pairs = zip(counts[0::2].tolist(), counts[1::2].tolist(), strict=True)
        means = (total / count if count else None for total, count in pairs)
        return dict(zip(self.names, means, strict=True))
