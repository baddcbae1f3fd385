"""Checks of settings: before a start, and once the data is read and the model is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError, plain, render
from launcher.config import errors, feature_checks, paths, provenance, selection
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO, batch_line, proposed_batch
from launcher.config.custom_task import load_task_class
from launcher.config.feature_settings import Continual, Download, Report
from launcher.config.originals import fetched, hub_folder
from launcher.config.provenance import (
    MODE_LAYER,
    PROFILE_LAYER,
    USER_LAYERS,
    Resolved,
    Setting,
    first_origin,
)
from launcher.config.schema import PRETRAINED, setting_infos
from models.base import DataError
from models.catalog import is_custom
from training import duration
from training.settings import PROFILE_WARMUP

if TYPE_CHECKING:
    from models.base import Task
    from training.train_plan import TrainPlan

Values = Mapping[str, Setting]
_OF_OPTIMIZER = [f"optim.{key}" for key in ("name", "betas", "eps", "momentum", "weight_decay")]


def check_settings(values: Values) -> list[Diagnostic]:
    """The errors and warnings that need no data."""
    return [found for check in CHECKS for found in check(values)]


def check_train_plan(
    resolved: Resolved, total_steps: int, steps_per_epoch: int
) -> list[Diagnostic]:
    """The errors and warnings that need the number of samples."""
    values = resolved.values
    found = list(_too_rare(values, total_steps, steps_per_epoch))
    warmup = values["schedule.warmup"]
    steps = duration.steps(warmup.value, steps_per_epoch, total_steps)
    if steps >= total_steps and values["schedule.warmup_cap"].value is None:
        found.append(_long_warmup(values, steps, total_steps))
    return found


def why_ineffective(values: Values, key: str) -> str | None:
    """Why a setting has no effect with the others; None if it has one."""
    family = values["model.family"].value
    if key in _OF_OPTIMIZER and _has_own_optimizer(family):
        return f"has no effect: {family} has its own optimizer"
    leaf = setting_infos(family)[key]
    for other, wanted in leaf.only_if.items():
        if values[other].value not in wanted:
            needed = " or ".join(map(plain, wanted))
            return f"has no effect: {other} is {plain(values[other].value)}, not {needed}"
    for other, unwanted in leaf.unless.items():
        if other in values and values[other].value in unwanted:  # a custom task may lack it
            return f"has no effect: {other} is {plain(values[other].value)}"
    return None


def _has_own_optimizer(family: str) -> bool:
    return is_custom(family) and hasattr(load_task_class(family), "optimizer")


def _own_optimizer(values: Values) -> Iterator[Diagnostic]:
    """The optimizer of a custom task needs parameters in their own shape, on every process."""
    family, engine = values["model.family"].value, values["engine.name"].value
    able = [entry.name for entry in ENGINES.values() if not entry.needs]  # torch alone
    if engine not in able and _has_own_optimizer(family):
        yield errors.about(
            values,
            "engine.name",
            f"{family} has its own optimizer, to which engine {engine} gives parts of parameters",
            allowed=", ".join(able),
            fix="--engine fsdp",
        )


def _ds_config(values: Values) -> Iterator[Diagnostic]:
    path, engine = values["engine.ds_config"].value, values["engine.name"].value
    if path is None:
        return
    zero = [entry.name for entry in ENGINES.values() if entry.ds_config]
    if engine not in zero:
        yield errors.about(
            values,
            "engine.ds_config",
            f"engine.ds_config needs a DeepSpeed engine, and the engine is {engine}",
            allowed=f"with the engines {', '.join(zero)}",
            fix="--engine zero2",
        )


def _paths(values: Values) -> Iterator[Diagnostic]:
    for key in ("data.path", "data.text", "model.pretrained", "engine.ds_config"):
        path = values[key].value if key in values else None
        if (
            path is None
            or path.startswith("embedded:")
            or (path and Path(path).expanduser().exists())
        ):
            continue
        if key == "data.text" and why_ineffective(values, key):
            continue
        if key == "data.path" and feature_checks.will_download(values, path):
            continue
        near = errors.nearest_file(path)
        fix = near and errors.fix_line(key, values[key].origin, near)
        if key == PRETRAINED and near is None:
            line = partial(errors.fix_line, key, values[key].origin)
            fix = fetched(path, line) if hub_folder(path) else None
        if key == PRETRAINED and values[key].origin.layer == provenance.RESUMED_LAYER:
            fix = f"--set {PRETRAINED}=DIR  if it has moved"
        yield errors.about_value(
            values,
            key,
            f"{_absent(Path(path).expanduser())} ({Path(path).expanduser().absolute()})",
            did_you_mean=near,
            fix=fix,
        )


def _absent(path: Path) -> str:
    return "is a link to a file that does not exist" if path.is_symlink() else "does not exist"


def _special_files(values: Values) -> Iterator[Diagnostic]:
    """Pipes, sockets and devices, which may be read for ever."""
    for key in paths.PATHS:
        if key in values and paths.is_special(key, values):
            allowed = "a file or a folder on disk, not a pipe, socket or device"
            yield errors.about_value(values, key, "is not a regular file", allowed=allowed)


def _limits(values: Values) -> Iterator[Diagnostic]:
    for name in ("ram", "gpu", "swap", "disk"):
        low, high = values[f"limits.{name}"], values[f"limits.critical.{name}"]
        if low.value > high.value:
            why = f"is above limits.critical.{name} {plain(high.value)}"
            yield errors.about_value(values, f"limits.{name}", f"{why} from {high.origin.where}")


def _warmup(values: Values) -> Iterator[Diagnostic]:
    warmup, most = values["schedule.warmup"], values["train.max_steps"].value
    if values["schedule.warmup_cap"].value is not None:
        return  # the warm-up is cut, with a note
    if isinstance(warmup.value, int) and most is not None and warmup.value >= most:
        yield _long_warmup(values, warmup.value, most)


def _long_warmup(values: Values, steps: int, total: int) -> Diagnostic:
    key = "schedule.warmup"
    return errors.about_value(
        values,
        key,
        f"is {steps} steps, and the run has {total}: the learning rate would never reach its peak",
        allowed=f"less than {total} steps",
        did_you_mean="10%",
        fix=errors.fix_line(key, values[key].origin, "10%"),
        severity="error" if provenance.is_set_by_user(values[key]) else "warning",
    )


def _length(values: Values) -> Iterator[Diagnostic]:
    if values["train.epochs"].value is None and values["train.max_steps"].value is None:
        why = "is null, and so is train.max_steps: the run has no end"
        fix = errors.fix_line("train.epochs", values["train.epochs"].origin, 1)
        allowed = "one of both"
        yield errors.about_value(values, "train.epochs", why, allowed=allowed, fix=fix)


def length_note(values: Values, train_plan: TrainPlan) -> str | None:
    """Which of epochs and steps ends the run, if the user set both; None: there is no choice."""
    epochs, most = values["train.epochs"], values["train.max_steps"]
    both = [setting for setting in (epochs, most) if setting.value is not None]
    if len(both) < 2 or not all(map(provenance.is_set_by_user, both)):
        return None
    ends_by_steps = train_plan.total_steps < train_plan.data_start + max(
        1, round(epochs.value * train_plan.steps_per_epoch)
    )
    named = (f"train.epochs={plain(epochs.value)}", f"train.max_steps={most.value}")
    first, other = reversed(named) if ends_by_steps else named
    return f"{first} ends the run at step {train_plan.total_steps}, before {other}"


def _never(values: Values) -> Iterator[Diagnostic]:
    most = values["train.max_steps"].value
    if most is not None:
        yield from _too_rare(values, most, None)
    if (
        values["save.every"].value is None
        and not values["save.keep_best"].value
        and not values["save.last"].value
        and provenance.is_set_by_user(values["save.last"])
    ):
        why = "means that no checkpoint is ever saved"
        fix = errors.fix_line("save.last", values["save.last"].origin, True)
        yield errors.about_value(values, "save.last", why, fix=fix, severity="warning")


def _too_rare(values: Values, total: int, steps_per_epoch: int | None) -> Iterator[Diagnostic]:
    for key, what in (("eval.every", "evaluation"), ("save.every", "save")):
        every = values[key]
        if every.value is None or not provenance.is_set_by_user(every):
            continue
        if steps_per_epoch is None and not isinstance(every.value, int):
            continue
        steps = duration.steps(every.value, steps_per_epoch or 1, total)
        if steps > total:
            why = f"is {steps} steps, and the run has {total}: no {what} falls inside it"
            fix = errors.fix_line(key, every.origin, max(1, total // 2))
            yield errors.about_value(values, key, why, fix=fix, severity="warning")


def _batch(values: Values) -> Iterator[Diagnostic]:
    """Warn if micro-batch or accumulation change the global batch."""
    if values[GLOBAL].origin.layer in USER_LAYERS:
        return
    typed = [key for key in (MICRO, ACCUMULATION) if values[key].origin.layer in USER_LAYERS]
    new = (values[MICRO].value or 1) * (values[ACCUMULATION].value or 1)
    old = _batch_of(values, provenance.shipped_value)
    if typed and new != old:
        yield errors.about(
            values,
            GLOBAL,
            f"the global batch is {new} instead of {old}, by {' and '.join(typed)}",
            value=new,
            where="; ".join(errors.where(key, values[key].origin) for key in typed),
            fix=f"--set {GLOBAL}={old}  to keep it, or  --set {GLOBAL}={new}  to confirm",
            severity="warning",
        )


def _batch_of(values: Values, read: Callable[[Setting], Any]) -> int:
    return (read(values[MICRO]) or 1) * (read(values[ACCUMULATION]) or 1)


def _mode_keeps_batch(values: Values) -> Iterator[Diagnostic]:
    """A mode that promises the same global batch, with numbers that do not divide."""
    promise = values["promise"].value.get("global_batch")
    if promise != {"at_least": 1, "at_most": 1}:
        return
    trio = (GLOBAL, MICRO, ACCUMULATION)
    if any(values[key].origin.layer in (PROFILE_LAYER, *USER_LAYERS) for key in trio):
        return
    old = _batch_of(values, provenance.mode_default_value)
    new = _batch_of(values, provenance.shipped_value)
    if new != old:
        lines = dict.fromkeys(values[key].origin.where for key in (MICRO, ACCUMULATION))
        why = f"promises a global batch of {old}, and gives {new} by {' and '.join(lines)}"
        yield errors.about_value(values, "mode", why, fix=f"--set {GLOBAL}={old}")


def _mode_changes_nothing(values: Values) -> Iterator[Diagnostic]:
    if values["mode"].value == "default":
        return
    for key, value in values.items():
        layers = provenance.all_values(value)
        for (new, origin), (old, _) in pairwise(layers):
            if origin.layer == MODE_LAYER and new != old and key != "promise":
                return
    yield errors.about_value(values, "mode", "changes nothing", severity="warning")


def _no_effect(values: Values) -> Iterator[Diagnostic]:
    severity = "error" if values["unread_settings"].value == "error" else "warning"
    for key, value in values.items():
        if provenance.is_set_by_user(value) and (why := why_ineffective(values, key)):
            fix = "remove it"
            if why.endswith(f"{PRETRAINED} is null"):
                fix = f"--set {PRETRAINED}=FOLDER  of a local model; or  remove it"
            yield errors.about_value(values, key, why, fix=fix, severity=severity)


def _continual_data(values: Values) -> Iterator[Diagnostic]:
    """New data arrives in data.path, which the run must read."""
    if not values["continual.enabled"].value or "data.path" not in values:
        return
    if why := why_ineffective(values, "data.path"):
        what = f"{why}; continual learning trains on new files there"
        yield errors.about_value(values, "data.path", what)


CHECKS: tuple[Callable[[Values], Iterator[Diagnostic]], ...] = (
    selection.check_stages,
    _ds_config,
    _own_optimizer,
    _paths,
    _special_files,
    _limits,
    _length,
    _warmup,
    _never,
    _batch,
    _mode_keeps_batch,
    _mode_changes_nothing,
    _no_effect,
    feature_checks.check_continual,
    _continual_data,
    feature_checks.check_download,
)


MOST_LEFT_OUT = 0.1
"""Largest share of an epoch that is dropped without a warning."""
_NAMED = 3


def check_before_training(
    resolved: Resolved, train_plan: TrainPlan, settings: TrackedSettings, prints: bool
) -> None:
    """Check lengths against the data, and find unused settings.

    Everything that reads settings must be built by now. Raises SettingsError; warnings go to
    stderr if this rank `prints`.
    """
    diagnostics: list[Diagnostic] = []
    if not train_plan.experience:  # which has a length and a schedule of its own
        diagnostics += check_train_plan(
            resolved, train_plan.total_steps, train_plan.steps_per_epoch
        )
    diagnostics += _left_out(resolved, train_plan)
    diagnostics += _short_profile(resolved, train_plan)
    diagnostics += unused_diagnostics(resolved, settings_read(settings))
    if wrong := [found for found in diagnostics if found.severity == "error"]:
        raise SettingsError(wrong)
    if diagnostics and prints:
        print(render(diagnostics), file=sys.stderr)


def check_splits(task: Task, folder: Path) -> None:
    """Check that training and validation share no samples. Reads the run folder.

    Raises DataError if two splits are one object, or share groups.
    """
    from models.common.split import SPLIT_FILE, overlapping_groups  # imports numpy

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


def _short_profile(resolved: Resolved, train_plan: TrainPlan) -> list[Diagnostic]:
    """An error if a new run has fewer steps than its profile; a resumed one may have few left."""
    key, steps = "log.profile", resolved.settings.log.profile
    most = train_plan.end_step - PROFILE_WARMUP
    if steps is None or steps <= most or train_plan.first_step or train_plan.experience:
        return []
    why = f"needs {steps + PROFILE_WARMUP} steps, and the run has {train_plan.end_step}"
    fix = errors.fix_line(key, resolved.values[key].origin, most) if most > 0 else None
    allowed = f"1 to {most}" if most > 0 else f"a run of more than {PROFILE_WARMUP} steps"
    return [errors.about_value(resolved.values, key, why, allowed=allowed, fix=fix)]


def _left_out(resolved: Resolved, train_plan: TrainPlan) -> list[Diagnostic]:
    """Warn if much of an epoch is dropped as a partial batch."""
    length = train_plan.steps_per_epoch * train_plan.global_batch + train_plan.dropped_samples
    if train_plan.dropped_samples <= MOST_LEFT_OUT * length:
        return []
    asked, world_size = train_plan.global_batch, train_plan.world_size
    near = proposed_batch(length, asked, world_size) or asked
    better = f"; {near} drops {length % near}" if length % near < length % asked else ""
    return [
        errors.about(
            resolved.values,
            GLOBAL,
            f"{train_plan.dropped_samples} of {length} samples of an epoch do not fill a global "
            f"batch of {asked}: each epoch drops that many{better}",
            fix=batch_line(resolved, near) if better else "use more data",
            severity="warning",
        )
    ]


BY_THE_LAUNCHER = frozenset(
    {
        *("mode", "promise", "stages", "unread_settings", "model.family", "model.size"),
        *("engine.name", "engine.nproc", "engine.max_restarts", "limits.profile"),
        *("train.global_batch", "train.micro_batch", "train.accumulation"),
        *(f"continual.{name}" for name in Continual.model_fields),
        *(f"report.{name}" for name in Report.model_fields),
        *(f"download.{name}" for name in Download.model_fields),
    }
)
"""Settings that take effect before the run starts or after it; the run must read the others."""


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
    severity = "error" if resolved.settings.unread_settings == "error" else "warning"
    for key in unused_keys(resolved.values, taken):
        if first_origin(resolved.values[key]).layer in USER_LAYERS:
            why = "is unused: nothing in this run reads it"
            parts = {"fix": "remove it", "severity": severity}
            found.append(errors.about_value(resolved.values, key, why, **parts))
    return found
