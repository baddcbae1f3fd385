"""The evaluation of one split instead of training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from gearshift.models.base import DataError, SplitName
from gearshift.training.agreement import Interruption
from gearshift.training.callbacks.base import Numbers
from gearshift.training.data.loader import EvaluationBatches
from gearshift.training.data.samples import Samples
from gearshift.training.evaluation.evaluate import measure
from gearshift.training.inspection import preview_text

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import World
    from gearshift.models.base import Task


@dataclass(frozen=True)
class SplitResult:
    """The metrics of one split, and how the ranks that measured them ended."""

    split: str
    samples: int
    metrics: Numbers
    preview: str | None
    """Sample outputs as text; None: the task has none."""
    seconds: float
    reason: str
    """Which metrics that decide are not finite; empty: all are."""
    exit_code: int = 0


def samples_of(task: Task, split: str, seed: int) -> Samples:
    """The samples of `split`. Raises DataError that names the splits of `task` if it has none."""

    def has_samples(name: SplitName) -> bool:
        try:
            return len(task.data(name)) > 0
        except (LookupError, ValueError):  # of a task that keeps its splits in a mapping
            return False

    splits: tuple[SplitName, ...] = get_args(SplitName)
    known = [name for name in splits if has_samples(name)]
    if split not in known:
        raise DataError(
            f"the task has no split '{split}'",
            where=f"data('{split}') of the task",
            allowed=", ".join(known),
        )
    return Samples(task, task.data(split), seed)


def evaluate_split(
    task: Task,
    module: Module,
    split: str,
    batches: EvaluationBatches,
    world: World,
    goal: str | None,
) -> SplitResult:
    """The metrics of the present weights; their preview with split val, which it shows.

    `goal` is `eval.metric`, None: that of the task. Collective.
    """
    never = Interruption(world)  # a signal ends this process at once
    began = time.perf_counter()
    metrics = measure(task, module, batches, never)
    seconds = time.perf_counter() - began
    preview = None
    if split == "val":
        preview = preview_text(task, module, never)

    name_of_goal = (goal or task.goal.metric).split()[0]
    bad = []
    for name in dict.fromkeys(["val_loss", name_of_goal]):
        if not math.isfinite(metrics.get(name, 0.0)):
            bad.append(f"{name} {metrics[name]}")
    reason = f"{', '.join(bad)} in the evaluation of {split}" if bad else ""
    return SplitResult(split, batches.samples, metrics, preview, seconds, reason)
