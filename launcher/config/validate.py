"""Checks once the data is read and the model is built, and settings that nothing reads."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from launcher.base.diagnostics import Diagnostic, SettingsError, render
from launcher.config import errors
from launcher.config.batching import GLOBAL, LEAST, batch_line, proposed_batch
from launcher.config.check import long_warmup, too_rare, why_ineffective
from launcher.config.feature_settings import Continual, Download, Report
from launcher.config.provenance import BATCH_SETTINGS, Resolved, Values
from models.base import DataError
from training import duration
from training.settings import PROFILE_WARMUP

if TYPE_CHECKING:
    from models.base import Task
    from training.train_plan import TrainPlan

_MOST_LEFT_OUT = 0.1
"""Largest share of an epoch that is dropped without a warning."""
SPLIT = ("data.split_seed", "data.fold")
SPLIT_FIX = "in the task, split with self.split_groups(groups); or remove it"
_OF_LAUNCHER = (Continual, Report, Download)
BY_THE_LAUNCHER = frozenset(
    {
        *("mode", "promise", "stages", "unread_settings", "model.family", "model.size"),
        *("engine.name", "engine.nproc", "engine.max_restarts", "limits.profile"),
        *BATCH_SETTINGS,
        LEAST,
        *(f"{section.__name__.lower()}.{name}" for section in _OF_LAUNCHER for name in section.model_fields),
    }
)
"""Settings that take effect before the run starts or after it; the run must read the others."""


def check_before_training(
    resolved: Resolved, train_plan: TrainPlan, settings: TrackedSettings, prints: bool
) -> None:
    """Check lengths against the data, and find unused settings.

    Everything that reads settings must be built by now. Raises SettingsError; warnings go to
    stderr if this rank `prints`.
    """
    diagnostics: list[Diagnostic] = []
    if not train_plan.experience:  # which has a length and a schedule of its own
        diagnostics += check_train_plan(resolved, train_plan.total_steps, train_plan.steps_per_epoch)
    if not train_plan.experience and not train_plan.first_step:  # a resumed run has few steps left
        diagnostics += _idle_patience(resolved, train_plan)
        profiled, last = resolved.settings.log.profile, train_plan.end_step
        most = last - PROFILE_WARMUP
        if profiled is not None and profiled > most:
            problem = f"needs {profiled + PROFILE_WARMUP} steps, and the run has {last}"
            new = most if most > 0 else None
            diagnostics.append(errors.about_value(resolved.values, "log.profile", problem, new=new))
    diagnostics += _left_out(resolved, train_plan)
    diagnostics += unused_diagnostics(resolved, settings_read(settings))
    if wrong := [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]:
        raise SettingsError(wrong)
    if diagnostics and prints:
        print(render(diagnostics), file=sys.stderr)


def check_train_plan(resolved: Resolved, total_steps: int, steps_per_epoch: int) -> list[Diagnostic]:
    """The errors and warnings that need the number of samples."""
    values = resolved.values
    warmup = duration.steps(values["schedule.warmup"].value, steps_per_epoch, total_steps)
    return [*too_rare(values, total_steps, steps_per_epoch), *long_warmup(values, warmup, total_steps)]


def check_splits(task: Task, folder: Path) -> None:
    """Check that training and validation share no samples. Reads the run folder.

    Raises DataError if two splits are one object, or share groups.
    """
    from models.common.split import SPLIT_FILE, overlapping_groups  # imports numpy

    allowed = "each group, a recording, patient or document, in one of train, val and test"
    if task.data("train") is task.data("val"):
        where = "data('train') and data('val') of the task"
        raise DataError("the task trains and validates on the same samples", where=where, allowed=allowed)
    if shared := overlapping_groups(folder):
        message = f"{len(shared)} groups are in two splits, such as {', '.join(shared[:3])}"
        raise DataError(message, where=str(folder / SPLIT_FILE), allowed=allowed)


def _idle_patience(resolved: Resolved, train_plan: TrainPlan) -> Iterator[Diagnostic]:
    """Warn if the run has too few evaluations for a patience that the user set."""
    values, steps = resolved.values, train_plan.end_step
    count = train_plan.evaluations(0, steps - 1)
    for key, also in (("stop.patience", "stop.patience"), ("schedule.patience", "schedule.name")):
        patience, is_set = values[key].value, values[key].is_set_by_user or values[also].is_set_by_user
        if patience is None or count > patience or not is_set or why_ineffective(values, key):
            continue
        every = (steps - 1) // (patience + 1)
        problem = f"cannot act: it needs {patience + 1} evaluations before the last step, not {count}"
        fix = errors.fix_line("eval.every", values["eval.every"].origin, every) if every else None
        yield errors.about_value(values, key, problem, fix=fix, severity="warning")


def _left_out(resolved: Resolved, train_plan: TrainPlan) -> Iterator[Diagnostic]:
    """Warn if much of an epoch is dropped as a partial batch."""
    dropped, batch = train_plan.dropped_samples, train_plan.global_batch
    length = train_plan.steps_per_epoch * batch + dropped
    if dropped > _MOST_LEFT_OUT * length:
        new_batch = proposed_batch(length, batch, train_plan.world_size) or batch
        is_better = length % new_batch < length % batch
        line = batch_line(resolved.values, resolved.batching.micro_batch, new_batch)
        fix = line if is_better else "use more data"
        message = (
            f"{dropped} of {length} samples of an epoch are dropped: they fill no global batch of {batch}"
        )
        yield errors.about(resolved.values, GLOBAL, message, fix=fix, severity="warning")


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
        what = f"settings cannot change after they are resolved: {self._prefix}{name}"
        raise AttributeError(what)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrackedSettings, (self._settings, self._prefix, self._seen)

    def __repr__(self) -> str:
        return f"TrackedSettings({self._settings!r})"


def retracked(view: TrackedSettings, settings: BaseModel) -> TrackedSettings:
    """A view of other settings with the record of `view`."""
    return TrackedSettings(settings, seen=object.__getattribute__(view, "_seen"))


def settings_read(view: TrackedSettings) -> frozenset[str]:
    """The keys that were read through a view or any of its sections."""
    return frozenset(object.__getattribute__(view, "_seen"))


def unused_keys(values: Values, read: Collection[str]) -> list[str]:
    """The settings that a layer above built-in changed, that have an effect, and that nothing read."""
    keys = [key for key in values if key not in read and key not in BY_THE_LAUNCHER]
    changed = [key for key in keys if values[key].value != values[key].all_values[-1][0]]
    return [key for key in changed if why_ineffective(values, key) is None]


def unused_diagnostics(resolved: Resolved, read: Collection[str]) -> Iterator[Diagnostic]:
    """Diagnostics for the user's settings that nothing read.

    One of a split is an error: the result would pass for that of a fold.
    """
    is_strict = resolved.settings.unread_settings == "error"
    for key in unused_keys(resolved.values, read):
        if resolved.values[key].is_set_by_user:
            severity = "error" if is_strict or key in SPLIT else "warning"
            parts = {"fix": SPLIT_FIX if key in SPLIT else "remove it", "severity": severity}
            problem = "is unused: nothing in this run reads it"
            yield errors.about_value(resolved.values, key, problem, **parts)
