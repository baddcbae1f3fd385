"""The experience that ranks train on: its data, the data it replays, and its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.check import TrackedSettings
from gearshift.launcher.config.provenance import MACHINE_LAYER, Origin, Resolved
from gearshift.launcher.config.schema import Continual, task_class
from gearshift.launcher.run_folder import experiences, run_folder
from gearshift.launcher.run_folder.experiences import Experience, Ledger
from gearshift.launcher.run_folder.run_plan import ExperienceSpec, ResumeRequest
from gearshift.models.base import Context, ContinualTask, DataError, Task
from gearshift.training.callbacks.base import Json
from gearshift.training.storage import Storage

if TYPE_CHECKING:
    from gearshift.engines.base import World
    from gearshift.training.data.samples import ReplayMixture

_SCHEDULES = ("constant", "linear")
"""Schedules that an experience keeps; instead of any other it uses a cosine."""
_RECORDED = ("replay", "epochs", "max_steps", "lr_scale", "warmup", "min_samples")


def recorded_settings(continual: Continual) -> Json:
    """The settings of section `continual` that an experience keeps from its start to its end."""
    return {name: getattr(continual, name) for name in _RECORDED}


def spec_of(run: Path, experience: Experience, deadline: float | None = None) -> ExperienceSpec:
    """The spec of an experience of the run folder `run`."""
    numbers = [*experience.replayed, experience.number]
    return ExperienceSpec(run, numbers, experience.settings, deadline)


def spec_at(run: Path, after: int, upto: int) -> ExperienceSpec | None:
    """The spec of the steps (`after`, `upto`]; None if the run is not continual. Reads the disk.

    Raises StorageError, and SettingsError if the steps belong to more than one experience.
    """
    ledger = experiences.load(run) or Ledger()
    kept = [each for each in ledger.experiences if each.state != "postponed"]
    earlier = [each for each in kept if each.start_step < upto]
    if not earlier:
        return None
    first = earlier[-1].start_step
    if first > after:
        raise SettingsError.of(
            f"steps {after} to {upto} of {run} belong to more than one experience",
            value=str(run),
            allowed=f"a checkpoint of step {first} or later, and one after it; see save.every",
        )
    return spec_of(run, earlier[-1])


def resolve_experience(resolved: Resolved, spec: ExperienceSpec) -> Resolved:
    """The settings of a run as an experience uses them: its data, length and learning rate.

    The learning rate warms up to a share of `optim.lr` and decays by the schedule of the run if
    that is constant or linear, else by a cosine. Each changed value names the setting it follows
    from, and keeps the value that it overrides.
    """
    # Each changed setting, its value, the setting it follows from, and how.
    data = str(experiences.data_folder(spec.run, spec.numbers[0]))
    changes: list[tuple[str, Any, str, str]] = [("data.path", data, "enabled", "")]
    if spec.number:
        lr = resolved.values["optim.lr"].value
        schedule = resolved.values["schedule.name"].value
        settings = spec.settings
        scale = settings["lr_scale"]
        changes += [
            ("train.epochs", settings["epochs"], "epochs", ""),
            ("train.max_steps", settings["max_steps"], "max_steps", ""),
            ("optim.lr", lr * scale, "lr_scale", f"{lr:g} × {scale:g}"),
            ("schedule.name", schedule if schedule in _SCHEDULES else "cosine", "enabled", ""),
            ("schedule.warmup", settings["warmup"], "warmup", ""),
            ("schedule.warmup_cap", None, "warmup", ""),
            # stop.after is a step of the first data.
            ("stop.after", None, "enabled", ""),
            # Each experience has its own loaders to evaluate with: their workers end with them.
            ("loader.persistent", False, "enabled", ""),
        ]
    for key, value, source, formula in changes:
        origin = Origin(MACHINE_LAYER, f"continual.{source}", formula)
        resolved = resolved.changed({key: value}, origin)
    return resolved


def record_settings(resolved: Resolved, spec: ExperienceSpec) -> None:
    """Write the settings of an experience into its folder. Raises StorageError."""
    home = experiences.data_folder(spec.run, spec.number).parent
    run_folder.rewrite_settings(Storage(home), resolve_experience(resolved, spec))


def is_left(resume: ResumeRequest) -> bool:
    """Whether the resumed run has an experience to finish, or is resumed at an earlier step.

    Reads the disk. Raises SettingsError if the list of experiences cannot be read.
    """
    ledger = experiences.load(resume.source)
    return bool(ledger and (ledger.unfinished or resume.step is not None))


def check_continual(resume: ResumeRequest, where: str) -> None:
    """Refuse a plain run, which does not record the files that it trained on. Reads the disk.

    Raises SettingsError.
    """
    is_new = "data" in resume.reset or not run_folder.has_trained(resume.source)
    if not is_new and not experiences.load(resume.source):
        raise SettingsError.of(
            f"{resume.source} is no continual run: which files it trained on is not recorded",
            key="continual.enabled",
            where=where,
            allowed="with --reset data, which takes all files as new",
        )


def load_experience(
    spec: ExperienceSpec, first: Task, context: Context, settings: Any, world: World
) -> tuple[list[Task], ReplayMixture]:
    """A task for the first data, for each replayed experience, and for its own; its training data.

    Collective. `first` is the task of the first data, set up.

    Raises DataError if there is too little new data, or it cannot be read.
    """
    # Those who only ask for settings import neither numpy nor torch.
    from gearshift.models.common.split import load_sides
    from gearshift.training.data.samples import ReplayMixture

    tasks = [first]
    known = load_sides(spec.run)
    build = task_class(settings.model.family)
    for number in spec.numbers[1:]:
        folder = experiences.task_folder(spec.run, number)
        is_new = number == spec.number
        task_context = replace(context, folder=folder, earlier_splits=dict(known))
        view: Any = TrackedSettings(
            data_settings(settings, experiences.data_folder(spec.run, number))
        )
        task: Task = build(view.model, view.data, task_context)
        # Errors of rank_0_first itself, such as a lost rank, are not those of files.
        world.rank_0_first(partial(_read, task.setup, is_new))
        if isinstance(task, ContinualTask):
            _read(partial(task.continue_from, first), is_new)
        tasks.append(task)
        known |= load_sides(folder)
    new = tasks[-1].data("train")
    least = spec.settings["min_samples"]
    if len(new) < least:
        raise DataError(
            f"{len(new)} new training samples: continual.min_samples is {least}",
            where="data.path",
            allowed=f"at least {least}",
        )
    old = [task.data("train") for task in tasks[:-1]]
    return tasks, ReplayMixture(new, old, spec.settings["replay"])


def data_settings(settings: Any, folder: Path) -> Any:
    """`settings` with the data in `folder`; unreadable files are skipped, if they can be."""
    changes = {"path": str(folder)}
    if hasattr(settings.data, "on_bad"):
        changes["on_bad"] = "skip"  # the run is unattended
    return settings.model_copy(update={"data": settings.data.model_copy(update=changes)})


def _read(read: Callable[[], None], is_new: bool) -> None:
    """New files are unchecked: whatever a reader raises on them postpones the experience only."""
    try:
        read()
    except Exception as error:
        if not is_new or isinstance(error, DataError):
            raise
        raise DataError(
            f"the new files cannot be read: {type(error).__name__}: {error}", where="data.path"
        ) from error
