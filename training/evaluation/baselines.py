"""What the simple methods of a task reach, beside the model: at the end of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gearshift.models.base import DataError, HasBaselines
from gearshift.training.data.samples import Samples
from gearshift.training.logging.encoding import encode_bytes

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.models.base import Batch, SplitName, Task
    from gearshift.training.callbacks.base import Emit, Facts

LIMIT = 2048
"""The most samples of a split that a method sees: it takes seconds."""
_AT_ONCE = 16


def measure_baselines(
    task: Task, seed: int, best: Facts, world: World, report: Emit
) -> Sequence[Facts]:
    """Name and metrics of each simple method, the best first, as `best` says which way is better.

    Rank 0 measures, and the others wait. Reports an event "baselines"; or a warning if a method
    fails, on which the trained model does not depend. Empty: there are none. Collective.
    """
    if not isinstance(task, HasBaselines) or task.facts().get("control"):
        return ()
    content: Any = None
    if world.rank == 0:
        try:
            methods = task.baselines(_batches(task, "train", seed), _batches(task, "val", seed))
            content = [{"name": method.name, "metrics": method.metrics} for method in methods]
        except Exception as error:
            content = f"no baseline: {type(error).__name__}: {error}"
    content = json.loads(world.broadcast(encode_bytes(content)))
    if isinstance(content, str):
        report("warning", {"text": content})
        return ()

    name = best["metric"]
    sign = -1 if best["direction"] == "min" else 1

    def rank(method: Facts) -> float:
        return sign * float(method["metrics"].get(name, -sign * math.inf))

    content.sort(key=rank, reverse=True)
    if content:
        is_below = sign * best["value"] <= rank(content[0])
        report("baselines", {"best": best, "baselines": content, "is_below": is_below})
    return content


def _batches(task: Task, split: SplitName, seed: int) -> Iterator[Batch]:
    """The samples of a split, at most LIMIT, as they are in evaluations. Raises DataError."""
    samples = Samples(task, task.data(split), seed)
    numbers = list(samples.spread(LIMIT))
    for start in range(0, len(numbers), _AT_ONCE):
        micro_batch = samples[0, numbers[start : start + _AT_ONCE]]
        if isinstance(micro_batch, DataError):
            raise micro_batch
        yield micro_batch.batch
