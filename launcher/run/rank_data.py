"""The data that a rank trains and evaluates on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.base import Task
from training.data.loader import EvaluationBatches
from training.data.samples import ReplayMixture, Samples
from training.evaluation.evaluate import Forgetting, HeldOutPart

if TYPE_CHECKING:
    from torch import Tensor

    from engines.base import World
    from models.base import Split
    from training.data.workers import DataWatchdog
    from training.train_plan import TrainPlan


@dataclass(frozen=True)
class RankData:
    """The data that a rank trains and evaluates on."""

    number: int
    """Of the experience; 0: the data that the run began with."""
    train: Split
    tasks: Sequence[Task]
    """One for each experience, the newest last; the model is built by the first."""

    @property
    def notes(self) -> list[str]:
        """Lines about the data for the user."""
        if not isinstance(self.train, ReplayMixture):
            return []
        old = self.train.replayed
        new = len(self.train) - old
        return [f"experience {self.number}: {new} new and {old} replayed samples per epoch"]

    def evaluation(
        self,
        seed: int,
        most: int | None,
        train_plan: TrainPlan,
        world: World,
        loader: Any,
        watch: DataWatchdog,
        unused: Sequence[Tensor],
    ) -> tuple[EvaluationBatches, Forgetting | None]:
        """The validation batches, and what measures forgetting; None for the first data.

        `most`: samples of each evaluation; the chance of a noise control is that of the whole
        split. `unused`: tensors that loader workers do not need.

        Raises DataError if a split is empty.
        """
        parts = []
        for task in self.tasks:
            samples = Samples(task, task.data("val"), seed)
            size = train_plan.micro_batch
            capped = None if task.facts().get("control") else most
            batches = EvaluationBatches(samples, size, world, loader, watch, unused, most=capped)
            parts.append(HeldOutPart(task, batches))
        if not self.number:
            return parts[0].batches, None
        return parts[0].batches, Forgetting(self.number, parts[:-1], parts[-1])
