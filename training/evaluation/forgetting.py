"""Old and new data of an experience evaluated apart: what training on the new data forgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from training.callbacks.base import Facts, Numbers
from training.evaluation.evaluate import evaluate

if TYPE_CHECKING:
    from torch.nn import Module

    from models.base import Task
    from training.data.loader import EvaluationBatches
    from training.interruption import Interruption

OLD, NEW, ALL = "val_old", "val_new", "val"
"""Splits: held-out data of earlier experiences, of the new experience, and of both."""


class HeldOutPart(NamedTuple):
    """The held-out samples of one part of the data, and the task that evaluates them."""

    task: Task
    batches: EvaluationBatches


class Forgetting:
    """Evaluates old and new held-out data separately. Collective: evaluate, evaluate_before."""

    def __init__(self, number: int, old: Sequence[HeldOutPart], new: HeldOutPart):
        """`number` is that of the experience; `old` has at least one part."""
        self._number, self._old, self._new = number, old, new
        self._before: Mapping[str, Numbers] | None = None
        self._after: Mapping[str, Numbers] | None = None

    @property
    def is_before_known(self) -> bool:
        return self._before is not None

    def evaluate_before(self, module: Module, interruption: Interruption) -> None:
        self._before = self._measure(module, interruption)

    def evaluate(self, module: Module, interruption: Interruption) -> dict[str, dict[str, float]]:
        """The metrics of OLD, NEW and ALL, in this order.

        The task of each part evaluates it; the metrics of several parts are means by samples.
        """
        self._after = self._measure(module, interruption)
        return {name: dict(metrics) for name, metrics in self._after.items()}

    def _measure(self, module: Module, interruption: Interruption) -> dict[str, dict[str, float]]:
        *old, new = (
            (batches.split_samples, evaluate(task, module, batches, interruption))
            for task, batches in (*self._old, self._new)
        )
        return {OLD: mean(old), NEW: mean([new]), ALL: mean([*old, new])}

    def samples(self, split: str) -> tuple[int, int]:
        """Samples of an evaluation of OLD, NEW or ALL, and of the whole split."""
        sides = {OLD: self._old, NEW: [self._new], ALL: [*self._old, self._new]}
        batches = [part.batches for part in sides[split]]
        return sum(b.samples for b in batches), sum(b.split_samples for b in batches)

    def counts(self) -> tuple[int, int]:
        """Samples of an evaluation of ALL, and of the whole split."""
        return self.samples(ALL)

    def summary(self) -> dict[str, Any] | None:
        """The number of the experience, and the metrics of OLD and NEW before and after it."""
        if self._before is None or self._after is None:
            return None
        sides = {
            name: {"before": self._before[split], "after": self._after[split]}
            for name, split in (("old", OLD), ("new", NEW))
        }
        return {"number": self._number, **sides}

    def facts(self) -> dict[str, Any]:
        return {"before": self._before, "after": self._after}

    def resume(self, facts: Facts) -> None:
        self._before, self._after = (_numbers(facts.get(name)) for name in ("before", "after"))

    def close(self) -> None:
        for part in (*self._old, self._new):
            part.batches.close()


def mean(parts: Sequence[tuple[int, Numbers]]) -> dict[str, float]:
    """The mean of each metric by samples, over the parts that have it; NaN if none has."""
    means = {}
    for name in {name: None for _, metrics in parts for name in metrics}:
        values = [(samples, metrics.get(name, math.nan)) for samples, metrics in parts]
        known = [(samples, value) for samples, value in values if not math.isnan(value)]
        count = sum(samples for samples, _ in known)
        means[name] = sum(n * value for n, value in known) / count if count else math.nan
    return means


def _numbers(splits: Any) -> Mapping[str, Numbers] | None:
    """Numbers from JSON, where infinities and NaN are strings."""
    if splits is None:
        return None
    return {
        split: {name: float(value) for name, value in metrics.items()} for split, metrics in splits.items()
    }
