"""The experience that ranks train on: its data, the data it replays, and its settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.config import provenance
from launcher.config.feature_settings import Continual
from launcher.config.provenance import MACHINE_LAYER, Origin, Resolved
from launcher.config.schema import settings_class
from launcher.resume.find import ResumeRequest
from launcher.run.job_spec import ExperienceSpec
from launcher.run_folder import experiences
from launcher.run_folder.experiences import Experience, Ledger
from training.settings import nested
from training.storage import StorageError

_SCHEDULES = ("constant", "linear")
"""Schedules that an experience keeps; instead of any other it uses a cosine."""
_RECORDED = ("replay", "epochs", "max_steps", "lr_scale", "warmup", "min_samples")


def recorded_settings(continual: Continual) -> dict[str, Any]:
    """The settings of section `continual` that an experience keeps from its start to its end."""
    return {name: getattr(continual, name) for name in _RECORDED}


def spec_of(run: Path, experience: Experience, deadline: float | None = None) -> ExperienceSpec:
    """The spec of an experience of the run folder `run`."""
    numbers = [*experience.replayed, experience.number]
    folders = [experiences.folder_of(run, number) for number in numbers]
    return ExperienceSpec(experience.number, folders, experience.settings, deadline)


def spec_at(run: Path, after: int, upto: int) -> ExperienceSpec | None:
    """The spec of the steps (`after`, `upto`]; None if the run is not continual. Reads the disk.

    Raises StorageError, and SettingsError if the steps belong to more than one experience.
    """
    ledger = experiences.load(run) or Ledger()
    begun = [
        found
        for found in ledger.experiences
        if found.start_step < upto and found.state != "postponed"
    ]
    if not begun:
        return None
    if (first := begun[-1].start_step) > after:
        message = f"steps {after} to {upto} of {run} belong to more than one experience"
        allowed = f"a checkpoint of step {first} or later, and one after it"
        fix = f"keep more checkpoints:  {PROGRAM} resume {shlex.quote(str(run))} --set save.every=…"
        raise SettingsError.of(message, value=str(run), allowed=allowed, fix=fix)
    return spec_of(run, begun[-1])


def resolve_experience(resolved: Resolved, spec: ExperienceSpec) -> Resolved:
    """The settings of a run as an experience uses them: its data, length and learning rate.

    The learning rate warms up to a share of `optim.lr` and decays by the schedule of the run if
    that is constant or linear, else by a cosine. Each changed value names the setting it follows
    from, and keeps the value that it overrides.
    """
    changes: dict[str, tuple[Any, Origin]] = {
        "data.path": (str(spec.folders[0].data), _origin("continual.enabled"))
    }
    if spec.number:
        changes |= _training_changes(resolved, spec.settings)
    values = dict(resolved.values)
    for key, (value, origin) in changes.items():
        if values[key].value != value:
            values[key] = provenance.overridden(values[key], value, origin)
    tree = nested({key: value.value for key, value in values.items()})
    settings = settings_class(values["model.family"].value).model_validate(tree)
    return replace(resolved, settings=settings, values=values)


def resolve_next_start(resolved: Resolved, resume: ResumeRequest | None) -> Resolved:
    """The settings of the next start: those of the unfinished experience, if there is one.

    Reads the disk. Raises SettingsError if the list of experiences cannot be read.
    """
    ledger = None if resume is None else _ledger_of(resume)
    experience = None if ledger is None else ledger.unfinished
    if resume is None or experience is None or not experience.number:
        return resolved
    return resolve_experience(resolved, spec_of(resume.source, experience))


def is_left(resume: ResumeRequest) -> bool:
    """Whether the resumed run has an experience to finish, or is resumed at an earlier step.

    Reads the disk. Raises SettingsError if the list of experiences cannot be read.
    """
    ledger = _ledger_of(resume)
    return ledger is not None and (ledger.unfinished is not None or resume.step is not None)


def _ledger_of(resume: ResumeRequest) -> Ledger | None:
    try:
        return experiences.load(resume.source)
    except StorageError as error:
        raise SettingsError.of(str(error), value=str(resume.source)) from error


def _training_changes(
    resolved: Resolved, settings: Mapping[str, Any]
) -> dict[str, tuple[Any, Origin]]:
    lr, schedule = (resolved.values[key].value for key in ("optim.lr", "schedule.name"))
    scale = settings["lr_scale"]
    schedule = schedule if schedule in _SCHEDULES else "cosine"
    return {
        "train.epochs": (settings["epochs"], _origin("continual.epochs")),
        "train.max_steps": (settings["max_steps"], _origin("continual.max_steps")),
        "optim.lr": (lr * scale, _origin("continual.lr_scale", f"{lr:g} × {scale:g}")),
        "schedule.name": (schedule, _origin("continual.enabled")),
        "schedule.warmup": (settings["warmup"], _origin("continual.warmup")),
        "schedule.warmup_cap": (None, _origin("continual.warmup")),
        # stop.after is a step of the first data.
        "stop.after": (None, _origin("continual.enabled")),
        # Each experience has its own loaders to evaluate with: their workers end with them.
        "loader.persistent": (False, _origin("continual.enabled")),
    }


def _origin(key: str, formula: str = "") -> Origin:
    return Origin(MACHINE_LAYER, key, formula)
