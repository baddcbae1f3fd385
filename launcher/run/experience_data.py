"""The data that a rank trains and evaluates on: one task per experience, mixed for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from launcher.config.schema import task_class
from launcher.config.validate import TrackedSettings
from launcher.run.experience import ExperienceSpec
from launcher.run_folder.experiences import ExperienceFolder
from models.base import Context, ContinualTask, DataError, Task
from models.common.split import load_sides
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
class ExperienceData:
    """The data of one start of the ranks."""

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


def load_experience(
    spec: ExperienceSpec | None, first: Task, context: Context, settings: Any, world: World
) -> ExperienceData:
    """The data of an experience; `first` is the task of the first data, set up. Collective.

    Raises DataError if there is too little new data, or it cannot be read.
    """
    if spec is None or not spec.number:
        return ExperienceData(0, first.data("train"), [first])
    assert context.folder is not None, "a continual run has a folder"
    tasks, known = [first], load_sides(context.folder)
    for folder in spec.folders[1:]:
        own = replace(context, folder=folder.task_files, earlier_splits=dict(known))
        task = _task(folder, settings, own)
        _join(task, first, world, is_new=folder is spec.folders[-1])
        tasks.append(task)
        known |= load_sides(folder.task_files)
    new, least = tasks[-1].data("train"), spec.settings["min_samples"]
    if len(new) < least:
        raise DataError(
            f"{len(new)} new training samples: continual.min_samples is {least}",
            where="data.path",
            allowed=f"at least {least}",
        )
    old = [task.data("train") for task in tasks[:-1]]
    return ExperienceData(spec.number, ReplayMixture(new, old, spec.settings["replay"]), tasks)


def data_settings(settings: Any, folder: ExperienceFolder) -> Any:
    """`settings` with the data of an experience; unreadable files are skipped, if they can be."""
    changes: dict[str, Any] = {"path": str(folder.data)}
    if hasattr(settings.data, "on_bad"):
        changes["on_bad"] = "skip"  # the run is unattended
    return settings.model_copy(update={"data": settings.data.model_copy(update=changes)})


def _task(folder: ExperienceFolder, settings: Any, context: Context) -> Task:
    view: Any = TrackedSettings(data_settings(settings, folder))
    task: Task = task_class(settings.model.family)(view.model, view.data, context)
    return task


def _join(task: Task, first: Task, world: World, is_new: bool) -> None:
    def setup() -> None:
        with _reading(is_new):
            task.setup()

    world.rank_0_first(setup)  # its own errors, such as a lost rank, are not those of files
    if isinstance(task, ContinualTask):
        with _reading(is_new):
            task.continue_from(first)


@contextmanager
def _reading(is_new: bool) -> Iterator[None]:
    """New files are unchecked: whatever a reader raises on them postpones the experience only."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if not is_new:
            raise
        raise DataError(
            f"the new files cannot be read: {type(error).__name__}: {error}", where="data.path"
        ) from error
