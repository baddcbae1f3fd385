"""Exact evaluation of any split of a task, and of old and new data apart to measure forgetting."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch

from models.base import ChecksMeasures, DataError, HasFinalMetric, SplitName
from training.data.loader import EvaluationBatches, on_device
from training.data.samples import SampleDraws, Samples
from training.inspection import preview_text
from training.interruption import Interruption

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from engines.base import World
    from models.base import Metric, Task
    from training.data.samples import MicroBatch
    from training.settings import Loader

Metrics = Mapping[str, float]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
OLD, NEW, ALL = "val_old", "val_new", "val"
"""Splits: held-out data of earlier experiences, of the new experience, and of both."""


def evaluate(
    task: Task, module: Module, batches: EvaluationBatches, interruption: Interruption
) -> dict[str, float]:
    """The metrics of `batches` that are defined. Collective. Raises Interrupted.

    The same on every rank, where each sample counts once. Leaves `module` in training mode.
    """
    return _defined(_measure(task.metric(), module, batches, interruption))


def evaluate_final(
    task: Task, module: Module, batches: EvaluationBatches, interruption: Interruption
) -> dict[str, float]:
    """The metrics that `task` has for the end of a run only; empty: none. As `evaluate`."""
    metric = task.final_metric() if isinstance(task, HasFinalMetric) else None
    return {} if metric is None else _defined(_measure(metric, module, batches, interruption))


def metric_names(
    task: Task, module: Module, batches: EvaluationBatches, interruption: Interruption
) -> list[str]:
    """The names of the metrics, from one micro-batch per rank. As `evaluate`."""
    return sorted(_measure(task.metric(), module, [next(iter(batches))], interruption))


@dataclass(frozen=True)
class SplitResult:
    """The metrics of one split, and how the ranks that measured them ended."""

    split: str
    samples: int
    metrics: Mapping[str, float]
    preview: str | None
    """Sample outputs as text; None: the task has none."""
    seconds: float
    exit_code: int = 0
    reason: str = ""


@dataclass(frozen=True)
class SplitSamples:
    """The samples of a split, and how they are loaded."""

    samples: Samples
    micro_batch: int
    world: World
    loader: Loader
    watch: AbstractContextManager[None] | None = None
    unused: Sequence[Tensor] = ()

    def batches(self) -> EvaluationBatches:
        """The micro-batches of this rank; starts the workers. Close them after use."""
        return EvaluationBatches(
            self.samples, self.micro_batch, self.world, self.loader, self.watch, self.unused
        )


def samples_of(task: Task, split: str, seed: int) -> Samples:
    """The samples of `split`. Raises DataError that names the splits of `task` if it has none."""
    known = [name for name in SPLITS if _length(task, name)]
    if split not in known:
        raise DataError(
            f"the task has no split '{split}'",
            where=f"data('{split}') of the task",
            allowed=", ".join(known),
        )
    return Samples(task, task.data(split), seed)


def measure(
    task: Task, module: Module, chosen: SplitSamples, interruption: Interruption
) -> dict[str, float]:
    """All metrics of a split, those of the end of a run included. As `evaluate`. Collective."""
    batches = chosen.batches()
    try:
        metrics = evaluate(task, module, batches, interruption)
        return {**metrics, **evaluate_final(task, module, batches, interruption)}
    finally:
        batches.close()


def evaluate_split(task: Task, module: Module, split: str, chosen: SplitSamples) -> SplitResult:
    """The metrics and the preview of the present weights. Collective."""
    never = Interruption(chosen.world)  # a signal ends this process at once
    began = time.perf_counter()
    metrics = measure(task, module, chosen, never)
    seconds = time.perf_counter() - began
    preview = preview_text(task, module, never)
    return SplitResult(split, len(chosen.samples), metrics, preview, seconds)


def check_measures(task: Task, module: Module, micro_batch: int, world: World) -> None:
    """Let `task` check its loss and metrics on validation samples. Collective. Raises DataError.

    The samples are the same on all ranks, so that all ranks find the same.
    """
    if not isinstance(task, ChecksMeasures):
        return
    split = task.data("val")
    samples = [
        split.sample(i, SampleDraws(0, i)) for i in range(min(len(split), -(-micro_batch // 2)))
    ]
    once, twice = (on_device(task.collate(some), world.device) for some in (samples, samples * 2))
    module.eval()
    try:
        # A batch of another size is no reason to compile the model once more.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            task.check_measures(module, once, twice)
    finally:
        module.train()


def _measure(
    metric: Metric,
    module: Module,
    batches: Iterable[tuple[MicroBatch, bool]],
    interruption: Interruption,
) -> Mapping[str, float | None]:
    total: Tensor | None = None
    module.eval()
    try:
        with torch.no_grad(), interruption.watching(module):
            for micro_batch, counts in interruption.between(batches):
                # Also for one that does not count: sharded engines gather weights in each forward.
                values = metric.update(module, micro_batch.batch)
                added = values if counts else torch.zeros_like(values)
                total = added if total is None else total + added
    finally:
        module.train()
    assert total is not None  # EvaluationBatches gives every rank at least one
    return metric.result(interruption.world.sum(total).cpu())


def _defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}


@dataclass(frozen=True)
class HeldOutPart:
    """The held-out samples of one part of the data, and the task that evaluates them."""

    task: Task
    batches: EvaluationBatches


class Forgetting:
    """Evaluates old and new held-out data separately. Collective: evaluate, evaluate_before."""

    def __init__(self, number: int, old: Sequence[HeldOutPart], new: HeldOutPart):
        """`number` is that of the experience; `old` has at least one part."""
        self._number, self._old, self._new = number, old, new
        self._before: Mapping[str, Metrics] | None = None
        self._after: Mapping[str, Metrics] | None = None

    @property
    def is_before_known(self) -> bool:
        """Whether the metrics before the experience were measured."""
        return self._before is not None

    def evaluate_before(self, module: Module, interruption: Interruption) -> None:
        """Measure the metrics before the experience."""
        self._before = self._measure(module, interruption)

    def evaluate(self, module: Module, interruption: Interruption) -> dict[str, dict[str, float]]:
        """The metrics of OLD, NEW and ALL, in this order.

        The task of each part evaluates it; the metrics of several parts are means by samples.
        """
        self._after = self._measure(module, interruption)
        return {name: dict(metrics) for name, metrics in self._after.items()}

    def _measure(self, module: Module, interruption: Interruption) -> dict[str, dict[str, float]]:
        *old, new = (
            (
                part.batches.split_samples,
                evaluate(part.task, module, part.batches, interruption),
            )
            for part in (*self._old, self._new)
        )
        return {OLD: mean(old), NEW: mean([new]), ALL: mean([*old, new])}

    def samples(self, split: str) -> tuple[int, int]:
        """Samples of an evaluation of OLD, NEW or ALL, and of the whole split."""
        sides = {OLD: self._old, NEW: [self._new], ALL: [*self._old, self._new]}
        batches = [part.batches for part in sides[split]]
        return sum(b.samples for b in batches), sum(b.split_samples for b in batches)

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
        """The state that `resume` needs, as JSON."""
        return {"before": self._before, "after": self._after}

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Continue from the facts of an earlier process."""
        self._before, self._after = (_numbers(facts.get(name)) for name in ("before", "after"))

    def close(self) -> None:
        """End the workers."""
        for part in (*self._old, self._new):
            part.batches.close()


def evaluated_samples(
    batches: EvaluationBatches, forgetting: Forgetting | None, split: str = ALL
) -> tuple[int, int]:
    """Samples of an evaluation of `split`, and of the whole split."""
    if forgetting is not None:
        return forgetting.samples(split)
    return batches.samples, batches.split_samples


def mean(parts: Sequence[tuple[int, Metrics]]) -> dict[str, float]:
    """The mean of each metric by samples, over the parts that have it; NaN if none has."""
    names = {name: None for _, metrics in parts for name in metrics}
    means = {}
    for name in names:
        known = [
            (samples, metrics[name])
            for samples, metrics in parts
            if not math.isnan(metrics.get(name, math.nan))
        ]
        count = sum(samples for samples, _ in known)
        means[name] = sum(n * value for n, value in known) / count if count else math.nan
    return means


def _numbers(splits: Any) -> Mapping[str, Metrics] | None:
    """Metrics from JSON, where infinities and NaN are strings."""
    if splits is None:
        return None
    return {
        split: {name: float(value) for name, value in metrics.items()}
        for split, metrics in splits.items()
    }


def _length(task: Task, split: SplitName) -> int:
    try:
        return len(task.data(split))
    except (LookupError, ValueError):  # of a task that keeps its splits in a mapping
        return 0
