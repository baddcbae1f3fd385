"""Held-out data by split: that of a run, or in an experience the old and the new apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gearshift.training.callbacks.base import Numbers
from gearshift.training.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.models.base import Task
    from gearshift.training.data.loader import EvaluationBatches
    from gearshift.training.interruption import Interruption

ALL = "val"
OLD = "val_old"
NEW = "val_new"
"""Splits: all held-out data, and in an experience that of earlier ones and its own."""


class HeldOutPart(NamedTuple):
    """The held-out samples of the run or of an experience, and the task that evaluates them."""

    task: Task
    batches: EvaluationBatches


class HeldOut:
    """The held-out data of a run and its experiences. Collective: measure."""

    def __init__(self, parts: Sequence[HeldOutPart], number: int = 0):
        """`number`: of the experience to which the last of several `parts` belongs; 0: one part."""
        self.parts = parts
        self.number = number
        self._splits = {ALL: slice(None)}
        if number:
            self._splits = {OLD: slice(-1), NEW: slice(-1, None), **self._splits}

    def counts(self, split: str = ALL) -> tuple[int, int]:
        """Samples of an evaluation of `split`, and of the whole split."""
        batches = [part.batches for part in self.parts[self._splits[split]]]
        return sum(b.samples for b in batches), sum(b.split_samples for b in batches)

    def measure(self, module: Module, interruption: Interruption) -> dict[str, dict[str, float]]:
        """The metrics of each split, ALL last; those of several parts are means by samples."""
        measured = [
            (batches.split_samples, evaluate(task, module, batches, interruption))
            for task, batches in self.parts
        ]
        return {split: mean(measured[part]) for split, part in self._splits.items()}

    def close(self) -> None:
        for part in self.parts:
            part.batches.close()


def mean(parts: Sequence[tuple[int, Numbers]]) -> dict[str, float]:
    """The mean of each metric by samples, over the parts that have it; NaN if none has."""
    if len(parts) == 1:
        return dict(parts[0][1])
    means = {}
    for name in {name: None for _, metrics in parts for name in metrics}:
        known = [
            (n, metrics[name])
            for n, metrics in parts
            if not math.isnan(metrics.get(name, math.nan))
        ]
        count = sum(n for n, _ in known)
        means[name] = sum(n * value for n, value in known) / count if count else math.nan
    return means
