"""The data of an experience: its new samples, mixed with those of earlier ones for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from launcher.config.custom_task import task_class
from launcher.config.validate import TrackedSettings
from launcher.run.job_spec import ExperienceSpec
from launcher.run.rank_data import RankData
from launcher.run_folder.experiences import ExperienceFolder
from models.base import Context, ContinualTask, DataError, Task
from models.common.split import load_sides
from training.data.samples import ReplayMixture

if TYPE_CHECKING:
    from engines.base import World


def load_experience(
    spec: ExperienceSpec, first: Task, context: Context, settings: Any, world: World
) -> RankData:
    """The data of an experience; `first` is the task of the first data, set up. Collective.

    Raises DataError if there is too little new data, or it cannot be read.
    """
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
    return RankData(spec.number, ReplayMixture(new, old, spec.settings["replay"]), tasks)


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
