"""The loss: terms that are sums over their own units, and the curriculum that ramps them up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gearshift.models.abr.responses import UNKNOWN_CLASS
from gearshift.models.base import Batch

TERMS = ("signal", "exists", "latency", "amplitude", "class", "threshold")


def labels(
    batch: Batch,
    term: str,
) -> tuple[Tensor, Tensor]:
    """The true values of a term, and which of them are known; unknown ones are 0 and finite."""
    if term == "signal":
        return batch["signal"], torch.ones(len(batch["signal"]), dtype=torch.bool)
    if term == "class":
        return batch["target"], batch["target"] >= 0
    return batch[term], batch[f"{term}_mask"]


def units(
    batch: Batch,
    terms: Collection[str],
) -> dict[str, int]:
    """The number of known labels of `batch` for each term; signal counts samples."""
    return {term: int(labels(batch, term)[1].sum()) for term in terms}


@dataclass(frozen=True)
class TermSums:
    """The sum of each term over a batch; 0 with gradients if no label is known.

    signal: mean square over 200 points; exists: cross-entropy of a logit; latency (ms) and
    amplitude (µV): square; class: cross-entropy times the weight of the class, so that its mean is
    over samples, not over weights; threshold: squared difference of log1p of dB.
    """

    regression: str
    """Of signal, latency and amplitude: mse, or huber, which is linear from an error of 1 on."""
    smoothing: float
    class_weight: tuple[float, ...]

    def __call__(
        self,
        outputs: Mapping[str, Tensor],
        batch: Batch,
    ) -> dict[str, Tensor]:
        """The sum of each term among the model's `outputs`; scalars, float32."""
        return {term: self._sum(term, output.float(), batch) for term, output in outputs.items()}

    def _sum(
        self,
        term: str,
        output: Tensor,
        batch: Batch,
    ) -> Tensor:
        distance = F.mse_loss if self.regression == "mse" else F.huber_loss
        target, known = labels(batch, term)
        if term == "signal":
            # Of 200 points the mean, so that a sample is one unit.
            return distance(output, target, reduction="none").mean((1, 2)).sum()
        if term == "class":
            return F.cross_entropy(
                output,
                target,
                weight=_on(output.device, self.class_weight),
                ignore_index=UNKNOWN_CLASS,
                reduction="sum",
                label_smoothing=self.smoothing,
            )
        if term == "exists":
            loss = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        elif term == "threshold":
            # A threshold below 0 dB counts as 0: log1p is undefined below -1.
            loss = (torch.log1p(output) - torch.log1p(target.clamp(min=0))) ** 2
        else:
            loss = distance(output, target, reduction="none")
        return (loss * known).sum()


@lru_cache
def _on(
    device: torch.device,
    values: tuple[float, ...],
) -> Tensor:
    """`values` on `device`, copied once: the host would wait for each copy."""
    return torch.tensor(values, device=device)


COMPLETE = 0.6
"""Share of the run after which every term has its full weight."""


@dataclass(frozen=True)
class TermRamps:
    """The epoch at which each term starts, and the epochs of its ramp to full weight."""

    starts: Mapping[str, float]
    """Other terms have their full weight from the first step."""
    ramp: float

    def factors(
        self,
        epoch: float,
        epochs: float,
    ) -> dict[str, float]:
        """The share of its weight that each term of `starts` has after `epoch` of `epochs`.

        If the last ramp would end after 60 % of the run, starts and ramps are scaled down
        together to end there.
        """
        last = max(self.starts.values()) + self.ramp
        shrink = min(1.0, COMPLETE * epochs / last) if last > 0 else 1.0
        ramp = shrink * self.ramp
        factors = {}
        for term, start in self.starts.items():
            since = epoch - shrink * start
            # Without a ramp, a term starts at once.
            share = since / ramp if ramp > 0 else float(since >= 0)
            factors[term] = min(1.0, max(0.0, share))
        return factors
