"""The loss: terms that are sums over their own units, and the curriculum that ramps them up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.abr.responses import UNKNOWN_CLASS
from models.base import Batch

TERMS = ("signal", "exists", "latency", "amplitude", "class", "threshold")
DELTA = 1.0
"""The error at which the Huber loss becomes linear."""


def units(batch: Batch, terms: Collection[str]) -> dict[str, int]:
    """The number of known labels of `batch` for each term."""
    counts = {
        "signal": len(batch["signal"]),
        "exists": batch["exists_mask"].sum(),
        "latency": batch["peak_mask"][:, 0].sum(),
        "amplitude": batch["peak_mask"][:, 1].sum(),
        "class": (batch["target"] >= 0).sum(),
        "threshold": batch["threshold_mask"].sum(),
    }
    return {term: int(counts[term]) for term in terms}


class TermSums:
    """The sum of each term over a batch; 0 with gradients if no label is known.

    signal: mean square over 200 points; exists: cross-entropy of a logit; latency (ms) and
    amplitude (µV): square; class: cross-entropy times the weight of the class, so that its mean is
    over samples, not over weights; threshold: squared difference of log1p of dB.
    """

    def __init__(self, regression: str, smoothing: float, class_weight: Sequence[float]) -> None:
        """`regression`, mse or huber, is the loss of signal, latency and amplitude."""
        self._distance = F.mse_loss if regression == "mse" else _huber
        self._smoothing = smoothing
        self._class_weight = tuple(class_weight)
        self._of: dict[str, Callable[[Tensor, Batch], Tensor]] = {
            "signal": self._signal,
            "exists": self._exists,
            "latency": partial(self._peak, column=0),
            "amplitude": partial(self._peak, column=1),
            "class": self._class,
            "threshold": self._threshold,
        }

    def __call__(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The sum of each term among the model's `outputs`; scalars, float32."""
        return {term: self._of[term](output.float(), batch) for term, output in outputs.items()}

    def _signal(self, output: Tensor, batch: Batch) -> Tensor:
        return self._distance(output, batch["signal"], reduction="none").mean((1, 2)).sum()

    def _exists(self, output: Tensor, batch: Batch) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(output, batch["exists"], reduction="none")
        return _known(loss, batch["exists_mask"])

    def _peak(self, output: Tensor, batch: Batch, column: int) -> Tensor:
        loss = self._distance(output, batch["peak"][:, column], reduction="none")
        return _known(loss, batch["peak_mask"][:, column])

    def _class(self, output: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(
            output,
            batch["target"],
            weight=_on(output.device, self._class_weight),
            ignore_index=UNKNOWN_CLASS,
            reduction="sum",
            label_smoothing=self._smoothing,
        )

    def _threshold(self, output: Tensor, batch: Batch) -> Tensor:
        # A threshold below 0 dB counts as 0: log1p is undefined below -1.
        target = torch.log1p(batch["threshold"].clamp(min=0))
        return _known((torch.log1p(output) - target) ** 2, batch["threshold_mask"])


def _huber(output: Tensor, target: Tensor, **options: Any) -> Tensor:
    return F.huber_loss(output, target, delta=DELTA, **options)


@lru_cache
def _on(device: torch.device, values: tuple[float, ...]) -> Tensor:
    """`values` on `device`, copied once: the host would wait for each copy."""
    return torch.tensor(values, device=device)


def _known(loss: Tensor, mask: Tensor) -> Tensor:
    """The sum where `mask` is true; unknown entries are 0 and finite."""
    return (loss * mask).sum()


COMPLETE = 0.6
"""Share of the run after which every term has its full weight."""


@dataclass(frozen=True)
class TermRamps:
    """The epoch at which each term starts, and the epochs of its ramp to full weight."""

    starts: Mapping[str, float]
    """Other terms have their full weight from the first step."""
    ramp: float

    def factors(self, terms: Collection[str], epoch: float, epochs: float) -> dict[str, float]:
        """The share of its weight that each of `terms` has after `epoch` of `epochs`.

        If the last ramp would end after 60 % of the run, starts and ramps are scaled down
        together to end there.
        """
        starts = {term: self.starts.get(term) for term in terms}
        last = max((start + self.ramp for start in starts.values() if start is not None), default=0)
        shrink = min(1.0, COMPLETE * epochs / last) if last else 1.0
        return {
            term: 1.0 if start is None else _ramp(epoch - shrink * start, shrink * self.ramp)
            for term, start in starts.items()
        }


def _ramp(since: float, ramp: float) -> float:
    """0 to 1 over `ramp` epochs."""
    if ramp <= 0:
        return float(since >= 0)
    return min(1.0, max(0.0, since / ramp))
