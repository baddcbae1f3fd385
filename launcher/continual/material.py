"""What a rank learns from and is judged on: the parts of the data, each with its task, mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from launcher.config.task_class import set_up, task_class
from launcher.config.unused_settings import Taken
from launcher.continual.lesson import Lesson, Part, data_of
from models.base import Context, DataError, Joining, Task
from models.common.split import sides
from training.data.loader import EvaluationBatches
from training.data.mixture import Mixture
from training.data.samples import Samples
from training.evaluation import forgetting
from training.evaluation.forgetting import Forgetting

if TYPE_CHECKING:
    from engines.base import World
    from models.base import Split
    from training.callbacks.base import TrainPlan
    from training.data.watch import Watch


@dataclass(frozen=True)
class Material:
    """The data of one start of the ranks."""

    number: int
    """Of the experience; 0: the data that the run began with."""
    train: Split
    tasks: Sequence[Task]
    """One a part, the newest last; the first is the one that the model is built by."""

    @property
    def notes(self) -> list[str]:
        """What of it a person should know."""
        if not isinstance(self.train, Mixture):
            return []
        old = self.train.replayed
        new = len(self.train) - old
        return [f"experience {self.number}: {new} new samples an epoch, and {old} of older data"]

    def judged(
        self, seed: int, train_plan: TrainPlan, world: World, loader: Any, watch: Watch
    ) -> tuple[EvaluationBatches, Forgetting | None]:
        """What the run is judged on, and the judge of an experience; None: this is none.

        Raises DataError where a split is empty.
        """
        parts = []
        for task in self.tasks:
            samples = Samples(task, task.data("val"), seed)
            batches = EvaluationBatches(samples, train_plan.micro_batch, world, loader, watch)
            parts.append(forgetting.Part(task, batches, len(samples)))
        if not self.number:
            return parts[0].batches, None
        return parts[0].batches, Forgetting(self.number, parts[:-1], parts[-1])


def gather(
    lesson: Lesson | None, first: Task, context: Context, settings: Any, world: World
) -> Material:
    """The parts of `lesson`; `first`, set up in `context`, is the task of the first. Collective.

    `settings` are those of the run. Raises DataError where the newest part cannot be learnt, or
    not yet.
    """
    if lesson is None or not lesson.number:
        return Material(0, first.data("train"), [first])
    assert context.folder is not None, "a run that learns on has a folder"
    tasks, known = [first], sides(context.folder)
    for part in lesson.parts[1:]:
        task = _task(part, settings, replace(context, folder=part.kept, earlier=dict(known)))
        _join(task, first, world, is_new=part is lesson.parts[-1])
        tasks.append(task)
        known |= sides(part.kept)
    new, least = tasks[-1].data("train"), lesson.how["min_samples"]
    if len(new) < least:
        raise DataError(
            f"{len(new)} new training samples, and continual.min_samples is {least}",
            where="data.path",
            allowed=f"at least {least}",
        )
    old = [task.data("train") for task in tasks[:-1]]
    return Material(lesson.number, Mixture(new, old, lesson.how["replay"]), tasks)


def _task(part: Part, settings: Any, context: Context) -> Task:
    """The task of a part: bad files are left out, for nobody is there to repair them."""
    view: Any = Taken(data_of(settings, part, "skip"))
    task: Task = task_class(settings.model.family)(view.model, view.data, context)
    return task


def _join(task: Task, first: Task, world: World, is_new: bool) -> None:
    try:
        set_up(task, world)
        if isinstance(task, Joining):
            task.join(first)
    except DataError:
        raise
    except Exception as fault:
        if not is_new:
            raise
        # A file that nobody has looked at may break a reader in any way: it waits, the run goes on.
        raise DataError(
            f"the new files cannot be read: {type(fault).__name__}: {fault}", where="data.path"
        ) from fault
