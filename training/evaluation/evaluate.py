"""Exact evaluation of any split of a task, of held-out data by experience, and of baselines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from gearshift.models.base import ChecksMeasures, DataError, HasBaselines, HasFinalMetric, SplitName
from gearshift.training.agreement import Interruption
from gearshift.training.callbacks.base import Numbers
from gearshift.training.data.loader import EvaluationBatches, on_device
from gearshift.training.data.samples import SampleDraws, Samples
from gearshift.training.logging.encoding import encode_bytes

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from gearshift.engines.base import World
    from gearshift.models.base import Batch, Metric, Task
    from gearshift.training.callbacks.base import Emit, Facts
    from gearshift.training.data.samples import MicroBatch

ALL = "val"
OLD = "val_old"
NEW = "val_new"
"""Splits: all held-out data, and in an experience that of earlier ones and its own."""


MOST_SAMPLES = 2048
"""The most samples of a split that a baseline sees, which takes seconds."""
_BASELINE_BATCH = 16


def evaluate(
    task: Task,
    module: Module,
    batches: EvaluationBatches,
    interruption: Interruption,
) -> dict[str, float]:
    """The metrics of `batches` that are defined. Collective. Raises Interrupted.

    The same on every rank, where each sample counts once. Leaves `module` in training mode.
    """
    return _defined(measure_batches(task.metric(), module, batches, interruption))


def evaluate_final(
    task: Task,
    module: Module,
    batches: EvaluationBatches,
    interruption: Interruption,
) -> dict[str, float]:
    """The metrics that `task` has for the end of a run only; empty: none. As `evaluate`."""
    metric = task.final_metric() if isinstance(task, HasFinalMetric) else None
    if metric is None:
        return {}
    return _defined(measure_batches(metric, module, batches, interruption))


def measure(
    task: Task,
    module: Module,
    batches: EvaluationBatches,
    interruption: Interruption,
) -> dict[str, float]:
    """All metrics of a split, those of the end of a run included. As `evaluate`. Collective.

    Ends the workers.
    """
    try:
        metrics = evaluate(task, module, batches, interruption)
        return {**metrics, **evaluate_final(task, module, batches, interruption)}
    finally:
        batches.close()


def check_measures(task: Task, module: Module, micro_batch: int, world: World) -> None:
    """Let `task` check its loss and metrics on validation samples. Collective. Raises DataError.

    The samples are the same on all ranks, so that all ranks find the same.
    """
    if not isinstance(task, ChecksMeasures):
        return
    split = task.data("val")
    count = min(len(split), -(-micro_batch // 2))
    samples = [split.sample(i, SampleDraws(0, i)) for i in range(count)]
    once = on_device(task.collate(samples), world.device)
    twice = on_device(task.collate(samples * 2), world.device)
    module.eval()
    try:
        # A batch of another size is no reason to compile the model once more.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            task.check_measures(module, once, twice)
    finally:
        module.train()


def measure_batches(
    metric: Metric,
    module: Module,
    batches: Iterable[tuple[MicroBatch, bool]],
    interruption: Interruption,
) -> Mapping[str, float | None]:
    """The `metric` of `batches`, each with whether it counts. As `evaluate`."""
    total: Tensor | None = None
    module.eval()
    try:
        with torch.no_grad(), interruption.watching(module):
            for micro_batch, counts in interruption.between(batches):
                if "torch._inductor.cudagraph_trees" in sys.modules:  # by the mark of an engine
                    torch.compiler.cudagraph_mark_step_begin()
                # Also for one that does not count: sharded engines gather weights in each forward.
                values = metric.update(module, micro_batch.batch)
                if not counts:
                    values = torch.zeros_like(values)
                total = values if total is None else total + values
    finally:
        module.train()
    assert total is not None  # EvaluationBatches gives every rank at least one
    return metric.result(interruption.world.sum(total).cpu())


def _defined(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}


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
            self._splits = {
                OLD: slice(-1),
                NEW: slice(-1, None),
                **self._splits,
            }

    def counts(self, split: str = ALL) -> tuple[int, int]:
        """Samples of an evaluation of `split`, and of the whole split."""
        batches = [part.batches for part in self.parts[self._splits[split]]]
        return sum(b.samples for b in batches), sum(b.split_samples for b in batches)

    def measure(self, module: Module, interruption: Interruption) -> dict[str, dict[str, float]]:
        """The metrics of each split, ALL last; those of several parts are means by samples."""
        measured = []
        for task, batches in self.parts:
            metrics = evaluate(task, module, batches, interruption)
            measured.append((batches.split_samples, metrics))
        return {split: mean(measured[part]) for split, part in self._splits.items()}

    def close(self) -> None:
        for part in self.parts:
            part.batches.close()


def mean(parts: Sequence[tuple[int, Numbers]]) -> dict[str, float]:
    """The mean of each metric by samples, over the parts that have it; NaN if none has."""
    if len(parts) == 1:
        return dict(parts[0][1])
    means = {}
    for name in dict.fromkeys(chain.from_iterable(metrics for _, metrics in parts)):
        values = [(count, metrics.get(name, math.nan)) for count, metrics in parts]
        known = [(count, value) for count, value in values if not math.isnan(value)]
        total = sum(count for count, _ in known)
        means[name] = sum(n * value for n, value in known) / total if total else math.nan
    return means


def measure_baselines(task: Task, seed: int, world: World) -> Any:
    """Name and metrics of each simple method, or why one fails; empty: there are none. Collective.

    Rank 0 measures, and the others wait.
    """
    if not isinstance(task, HasBaselines) or task.facts().get("control"):
        return ()
    content: Any = None
    if world.rank == 0:
        try:
            methods = task.baselines(_batches(task, "train", seed), _batches(task, "val", seed))
            content = [{"name": method.name, "metrics": method.metrics} for method in methods]
        # The border of the task's code: the run is trained, whatever is wrong with a method.
        except Exception as error:
            content = f"no baseline: {type(error).__name__}: {error}"
    return json.loads(world.broadcast(encode_bytes(content)))


def ranked_baselines(content: Any, best: Facts, report: Emit) -> Sequence[Facts]:
    """The `content` of measure_baselines, the best first, as `best` says which way is better.

    Reports an event "baselines"; or a warning if a method fails, on which the trained model does
    not depend. Empty: there are none.
    """
    if isinstance(content, str):
        report("warning", {"text": content})
        return ()

    name = best["metric"]
    sign = -1 if best["direction"] == "min" else 1

    def rank(method: Facts) -> float:
        return sign * float(method["metrics"].get(name, -sign * math.inf))

    methods = sorted(content, key=rank, reverse=True)
    if methods:
        is_below = sign * best["value"] <= rank(methods[0])
        best = beside_baseline(best, methods)
        report("baselines", {"best": best, "baselines": methods, "is_below": is_below})
    return methods


def beside_baseline(best: Facts, baselines: Sequence[Facts]) -> Facts:
    """The `best` evaluation with the first of `baselines`, if it has the metric."""
    for nearest in baselines[:1]:
        value = nearest["metrics"].get(best["metric"])
        if value is not None:
            return {**best, "baseline": {"name": nearest["name"], "value": value}}
    return best


def _batches(task: Task, split: SplitName, seed: int) -> Iterator[Batch]:
    """At most MOST_SAMPLES of a split, as they are in evaluations. Raises DataError."""
    samples = Samples(task, task.data(split), seed)
    numbers = list(samples.spread(MOST_SAMPLES))
    for start in range(0, len(numbers), _BASELINE_BATCH):
        micro_batch = samples[0, numbers[start : start + _BASELINE_BATCH]]
        if isinstance(micro_batch, DataError):
            raise micro_batch
        yield micro_batch.batch
