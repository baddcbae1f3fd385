"""Checks once the data is read and the model is built; settings that nothing read."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from launcher.base.diagnostics import Diagnostic, SettingsError, render, shown
from launcher.config import errors
from launcher.config.batching import GLOBAL, largest_divisor
from launcher.config.feature_settings import Continual, Download
from launcher.config.provenance import USER_LAYERS, Resolved, Setting, first_origin
from launcher.config.validate import check_train_plan, why_ineffective
from models.base import DataError, Task
from models.common.split import SPLIT_FILE, overlapping_groups
from training.train_plan import TrainPlan

MOST_LEFT_OUT = 0.1
"""Largest share of an epoch that is dropped without a warning."""
_NAMED = 3


def check_before_training(
    resolved: Resolved, train_plan: TrainPlan, settings: TrackedSettings, speaks: bool
) -> None:
    """Check lengths against the data, and find unused settings.

    Everything that reads settings must be built by now. Raises SettingsError; warnings go to
    stderr if this rank `speaks`.
    """
    diagnostics: list[Diagnostic] = []
    if not train_plan.experience:  # which has a length and a schedule of its own
        diagnostics += check_train_plan(
            resolved, train_plan.total_steps, train_plan.steps_per_epoch
        )
    diagnostics += _left_out(resolved, train_plan)
    diagnostics += unused_diagnostics(resolved, settings_read(settings))
    if errors := [found for found in diagnostics if found.severity == "error"]:
        raise SettingsError(errors)
    if diagnostics and speaks:
        print(render(diagnostics), file=sys.stderr)


def check_splits(task: Task, folder: Path) -> None:
    """Check that training and validation share no samples. Reads the run folder.

    Raises DataError if two splits are one object, or share groups.
    """
    fix = "split by group: recording, patient or document"
    if task.data("train") is task.data("val"):
        raise DataError(
            "the task trains and validates on the same samples",
            where="data('train') and data('val') of the task",
            allowed="splits that share no sample",
            fix=fix,
        )
    if shared := overlapping_groups(folder):
        more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
        raise DataError(
            f"{len(shared)} groups are in two splits: {', '.join(shared[:_NAMED])}{more}",
            where=str(folder / SPLIT_FILE),
            allowed="each group in one of train, val and test",
            fix=fix,
        )


def _left_out(resolved: Resolved, train_plan: TrainPlan) -> list[Diagnostic]:
    """Warn if much of an epoch is dropped as a partial batch."""
    length = train_plan.steps_per_epoch * train_plan.global_batch + train_plan.dropped_samples
    if train_plan.dropped_samples <= MOST_LEFT_OUT * length:
        return []
    whole = -(-length // train_plan.global_batch)
    near = largest_divisor(length, length // whole)
    origin = resolved.values[GLOBAL].origin
    return [
        Diagnostic(
            f"{train_plan.dropped_samples} of {length} samples of an epoch do not fill a global "
            f"batch of {train_plan.global_batch}: each epoch drops that many",
            key=GLOBAL,
            value=train_plan.global_batch,
            where=errors.where(GLOBAL, origin),
            fix=f"--set {GLOBAL}={near}",
            severity="warning",
        )
    ]


BY_THE_LAUNCHER = frozenset(
    {
        "mode",
        "promise",
        "stages",
        "unread_settings",
        "model.family",
        "model.size",
        "engine.name",
        "engine.nproc",
        "engine.max_restarts",
        "limits.profile",
        "train.global_batch",
        "train.micro_batch",
        "train.accumulation",
        *(f"continual.{name}" for name in Continual.model_fields),
        *(f"download.{name}" for name in Download.model_fields),
    }
)
"""Settings that take effect before the run starts; the run must read the others."""


class TrackedSettings:
    """The settings, or a section of them, by attribute; records each setting that is read.

    Sections share one record. Nothing can be written.
    """

    __slots__ = ("_prefix", "_seen", "_settings")

    def __init__(self, settings: BaseModel, prefix: str = "", seen: set[str] | None = None) -> None:
        object.__setattr__(self, "_settings", settings)
        object.__setattr__(self, "_prefix", prefix)
        object.__setattr__(self, "_seen", set() if seen is None else seen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling look up names that settings never have
            raise AttributeError(name)
        value = getattr(self._settings, name)
        key = self._prefix + name.rstrip("_")  # `async_`, for `async` is a Python keyword
        if isinstance(value, BaseModel):
            return TrackedSettings(value, f"{key}.", self._seen)
        self._seen.add(key)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"settings cannot change after they are resolved: {self._prefix}{name}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return TrackedSettings, (self._settings, self._prefix, self._seen)

    def __repr__(self) -> str:
        return f"Taken({self._settings!r})"


def settings_read(view: TrackedSettings) -> frozenset[str]:
    """The keys that were read through a view or any of its sections."""
    return frozenset(object.__getattribute__(view, "_seen"))


def unused_keys(values: Mapping[str, Setting], taken: Collection[str]) -> list[str]:
    """The settings that a layer above built-in set, that have an effect, and that nothing read.

    `only_if` and `unless` in the declaration of a setting tell when it has no effect.
    """
    return [
        key
        for key, value in values.items()
        if key not in taken
        and key not in BY_THE_LAUNCHER
        and first_origin(value).layer != "built-in"
        and why_ineffective(values, key) is None
    ]


def unused_diagnostics(resolved: Resolved, taken: Collection[str]) -> list[Diagnostic]:
    """Diagnostics for the user's settings that nothing read."""
    found = []
    for key in unused_keys(resolved.values, taken):
        value = resolved.values[key]
        if first_origin(value).layer not in USER_LAYERS:
            continue
        found.append(
            Diagnostic(
                f"{key} {shown(value.value)} is unused: nothing in this run reads it",
                key=key,
                value=value.value,
                where=errors.where(key, value.origin),
                fix="remove it",
                severity="error" if resolved.settings.unread_settings == "error" else "warning",
            )
        )
    return found
