"""The evaluation of any split of a task: its batches, all its metrics, and sample outputs."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from models.base import DataError, SplitName
from training.data.loader import EvaluationBatches
from training.data.samples import Samples
from training.evaluation.evaluate import evaluate, evaluate_final
from training.inspection import preview_text
from training.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.nn import Module

    from engines.base import World
    from models.base import Task
    from training.settings import Loader

SPLITS: tuple[SplitName, ...] = get_args(SplitName)


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
    found = next((name for name in known if name == split), None)
    if found is None:
        raise DataError(
            f"the task has no split '{split}'",
            where=f"data('{split}') of the task",
            allowed=", ".join(known),
        )
    return Samples(task, task.data(found), seed)


def measure(
    task: Task, module: Module, found: SplitSamples, interruption: Interruption
) -> dict[str, float]:
    """All metrics of a split, those of the end of a run included. As `evaluate`. Collective."""
    batches = found.batches()
    try:
        metrics = evaluate(task, module, batches, interruption)
        return {**metrics, **evaluate_final(task, module, batches, interruption)}
    finally:
        batches.close()


def evaluate_split(task: Task, module: Module, split: str, found: SplitSamples) -> SplitResult:
    """The metrics and the preview of the present weights. Collective."""
    never = Interruption(found.world)  # a signal ends this process at once
    began = time.perf_counter()
    metrics = measure(task, module, found, never)
    seconds = time.perf_counter() - began
    preview = preview_text(task, module, never)
    return SplitResult(split, len(found.samples), metrics, preview, seconds)


def _length(task: Task, split: SplitName) -> int:
    try:
        return len(task.data(split))
    except (LookupError, ValueError):  # of a task that keeps its splits in a mapping
        return 0
