"""Checks of settings, before a start and once the data is read; and settings that nothing reads."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import (
    Diagnostic,
    SettingsError,
    nearest_match,
    plain,
    render,
)
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.config import adapt, paths
from gearshift.launcher.config.batching import ACCUMULATION, GLOBAL, LEAST, MICRO, samples_of
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
    CLI_LAYER,
    RESUMED_LAYER,
    STAGED_MODE,
    USER_LAYERS,
    KeySets,
    Resolved,
    Values,
    as_list,
    hub_names,
    with_another,
)
from gearshift.launcher.config.schema import (
    DATA_PATH,
    PRETRAINED,
    config_of,
    setting_infos,
    task_class,
)
from gearshift.launcher.config.selection import STAGES, declared_stages, errors, select_stages
from gearshift.launcher.config.settings_file import nearest_file, read_table
from gearshift.models.base import DataError
from gearshift.models.catalog import FAMILIES, HUB, is_custom
from gearshift.models.common.data_reports import install_command
from gearshift.training.settings import PROFILE_WARMUP, TRACKERS, duration_steps

if TYPE_CHECKING:
    from gearshift.models.base import Task
    from gearshift.training.train_plan import TrainPlan

_OF_OPTIMIZER = (
    "optim.name",
    "optim.state",
    "optim.groups",
    "optim.layer_decay",
    "optim.betas",
    "optim.eps",
    "optim.momentum",
    "optim.weight_decay",
)


class Row(NamedTuple):
    """A check of the file, which says what its fields are."""

    key: str
    when: Mapping[str, Any] | None
    unless: Mapping[str, Any] | None
    problem: str
    allowed: str | None
    fix: str | None
    hint: str | None
    new: Any
    severity: Literal["error", "warning"] | None


ROWS = [Row(*row) for row in read_table("checks.yaml", Row._fields)]
_NAMES = (paths.EMBEDDED, HUB)
"""How data begins that is no path."""


def _facts(
    values: Values, now: Mapping[str, Any], keys: KeySets, *, is_launched: bool
) -> dict[str, Any]:
    """What checks name beside settings: in their conditions, and in braces in their texts."""
    family = now["model.family"]
    engine = ENGINES[now["engine.name"]]
    path = now.get(DATA_PATH)
    sources = path if isinstance(path, list) and not is_custom(family) else []
    weights = now.get("data.weights") or []
    is_file = isinstance(path, str) and Path(path).expanduser().is_file()
    torch_alone = [entry.name for entry in ENGINES.values() if not entry.needs]
    deepspeed = [entry.name for entry in ENGINES.values() if entry.ds_config]
    is_split = len(weights) == len(sources) and 0 < sum(weights) < math.inf
    facts = {
        "is_launched": is_launched,
        "has_stages": bool(declared_stages(family)),
        "has_own_optimizer": has_own_optimizer(family),
        "is_torch_alone": not engine.needs,
        "torch_alone": ", ".join(torch_alone),
        "is_deepspeed": engine.ds_config is not None,
        "deepspeed": ", ".join(deepspeed),
        "has_data_path": DATA_PATH in now,
        "sets_data_path": DATA_PATH in keys.user,
        # New files cannot arrive elsewhere; a path that does not exist is another error.
        "is_folder": isinstance(path, str) and not is_file and not path.startswith(_NAMES),
        "has_sources": bool(sources),
        "repeats_source": len({*map(os.path.realpath, sources)}) < len(sources),
        "fits_weights": is_custom(family) or is_split,
        "is_of_hub": bool(hub_names(values, DATA_PATH)),
        # A file cannot allow itself to send variables.
        "types_variables": values["download.variables"].origin.layer == CLI_LAYER,
    }
    for name in ("ram", "gpu", "swap"):
        facts[f"{name}_is_above"] = now[f"limits.{name}"] > now[f"limits.critical.{name}"]
    return facts


def _about(values: Values, key: str, problem: str, **fields: Any) -> Diagnostic:
    """As errors.about_value: a good run has none."""
    return errors().about_value(values, key, problem, **fields)


def check_settings(values: Values, keys: KeySets, *, is_launched: bool = False) -> list[Diagnostic]:
    """The errors and warnings that need no data.

    `is_launched`: torchrun or srun started the processes.
    """
    now = {key: setting.value for key, setting in values.items()}
    diagnostics: list[Diagnostic] = []
    facts = {**now, **_facts(values, now, keys, is_launched=is_launched)}
    for row in ROWS:
        is_checked = row.severity is None or row.key in keys.decided
        if row.key not in now or not is_checked or not adapt.holds(row.when or {}, facts):
            continue
        if any(adapt.holds({name: options}, facts) for name, options in (row.unless or {}).items()):
            continue
        diagnostic = _about(
            values,
            row.key,
            row.problem,
            allowed=row.allowed and row.allowed.format(**facts),
            fix=row.fix and row.fix.format(**facts),
            hint=row.hint,
            new=row.new,
            severity=row.severity or "error",
        )
        diagnostics.append(diagnostic)
    diagnostics += _stages(values)
    for text in now["track"]:
        name = text.partition(":")[0]
        package = TRACKERS[name].extra
        if package is not None and find_spec(package) is None:
            message = f"tracker {name} requires the package {package}"
            fix = install_command(package)
            diagnostics.append(errors().about(values, "track", message, fix=fix))
    for key in paths.PATHS:
        if key in values:
            for text in as_list(now[key]):
                diagnostics += _path(values, key, text)
    for key in ("model.start", "model.encoder"):
        if now.get(key) and "model.size" in values and not why_ineffective(values, key):
            from gearshift.launcher.config import named_model  # for the runs that name weights

            diagnostics += named_model.check_weights(values, key)
    max_steps = values["train.max_steps"].value
    if max_steps is not None:
        diagnostics += check_lengths(values, keys, max_steps)
    diagnostics += _global_batch(values, keys)
    diagnostics += _promised_sizes(values)
    diagnostics += _without_effect(values, keys)
    if now["download.files"]:
        from gearshift.launcher.config import feature_checks  # for the runs that download

        diagnostics += feature_checks.check_download(values)
    return diagnostics


def why_ineffective(values: Values, key: str) -> str | None:
    """Why a setting has no effect with the others; None if it has one."""
    family = values["model.family"].value
    if key in _OF_OPTIMIZER and has_own_optimizer(family):
        return f"has no effect: {family} has its own optimizer"
    info = setting_infos(family)[key]
    for conditions, is_needed in ((info.only_if, True), (info.unless, False)):
        for other, options in conditions.items():
            if other not in values:  # a custom task may lack it
                continue
            value = values[other].value
            if (value in options) is not is_needed:
                return f"has no effect: {other} is {plain(value)}"
    return None


def has_own_optimizer(family: str) -> bool:
    """Whether the class of a custom task builds the optimizer."""
    return is_custom(family) and hasattr(task_class(family), "optimizer")


def _stages(values: Values) -> Iterator[Diagnostic]:
    """Errors of the order and the first weights of stages."""
    names = values[STAGES].value
    family = values["model.family"].value
    stages = declared_stages(family)
    if values["mode"].value != STAGED_MODE or not names or not stages:
        return
    chosen = select_stages(names, stages)
    if [stage.name for stage in chosen] != names:
        known = [stage.name for stage in stages]
        meant = {nearest_match(name, known) for name in names}
        new = [name for name in known if name in meant]
        problem = f"is not a list of stages of {family} in their order"
        yield _about(values, STAGES, problem, allowed=", ".join(known), new=new or None)
        return
    first = chosen[0]
    if len(chosen) == 1 and first.loads is not None and values[first.loads].value is None:
        yield errors().about(
            values,
            STAGES,
            f"stage {first.name} starts from the weights of another stage, and no run is given",
            key=first.loads,
            value=None,
            allowed=f"--from RUN, a run of stage {' or '.join(first.of)}; "
            "or all stages, --mode staged",
            hint="--from RUN",
        )


def _path(values: Values, key: str, text: str | None) -> Iterator[Diagnostic]:
    """Errors of files that do not exist, of pipes and devices, which have no end, and of URLs."""
    if text is None or text.startswith(_NAMES):
        return
    if redact(text) != text:  # files of the run would name the password
        yield _about(values, key, "is a URL with a password", allowed="a path on this machine")
    path = Path(text).expanduser()
    if text and path.exists():
        if not path.is_file() and not path.is_dir():
            allowed = "a file or a folder on disk, not a pipe, socket or device"
            yield _about(values, key, "is not a regular file", allowed=allowed)
        return
    if key not in (DATA_PATH, PRETRAINED, "engine.ds_config"):
        return
    fix = None
    like = nearest_file(text)
    if key == DATA_PATH:
        from gearshift.launcher.config import feature_checks, named_model, other_tools

        if values["download.fetch"].value:
            if feature_checks.will_download(values, text):
                return
            if not feature_checks.is_requested(values):
                fix = "--download-data"
        like = like or named_model.nearest_name_of_hub(text)
        like = like or other_tools.repository(text, "dataset")
    hint = None
    if key == PRETRAINED and values[key].origin.layer == RESUMED_LAYER:
        hint = f"--set {PRETRAINED}=DIR  if it has moved"
    yield _about(
        values,
        key,
        f"does not exist ({path.absolute()})",
        allowed="a file or folder that exists",
        new=like and with_another(values[key].value, text, like),
        did_you_mean=like,
        fix=fix,
        hint=hint,
    )


def _global_batch(values: Values, keys: KeySets) -> Iterator[Diagnostic]:
    """Micro-batch or accumulation that change the global batch."""
    users = [key for key in (MICRO, ACCUMULATION) if key in keys.user]
    if GLOBAL in keys.user or not users:
        return
    new = samples_of({key: values[key].value for key in (MICRO, ACCUMULATION)})
    shipped = samples_of(keys.shipped)
    if new != shipped:
        yield errors().about(
            values,
            users[0],
            f"the global batch is {new} instead of {shipped}, by {' and '.join(users)}",
            key=GLOBAL,
            value=new,
            fix=f"--set {GLOBAL}={shipped}",
            hint=f"--set {GLOBAL}={new}  confirms it",
            severity="warning",
        )


def _promised_sizes(values: Values) -> Iterator[Diagnostic]:
    """Sizes of no family in promises of the user, which would never be checked."""
    promise = values["promise"]
    if promise.origin.layer not in USER_LAYERS:
        return
    sizes: set[str] = set()
    for family in (*FAMILIES, values["model.family"].value):
        sizes.update(config_of(family).SIZES)
    for bounds in promise.value.values():
        for name in (bounds or {}).get("sizes") or ():
            if name not in sizes:
                message = f"unknown size {name!r} in promise"
                like = nearest_match(name, sizes)
                allowed = ", ".join(sorted(sizes))
                yield errors().about(values, "promise", message, allowed=allowed, did_you_mean=like)


def _without_effect(values: Values, keys: KeySets) -> Iterator[Diagnostic]:
    """A mode that changes nothing, and settings of the user without effect."""
    mode = values["mode"].value
    if mode != "default" and keys.changed <= {"promise"}:
        yield _about(values, "mode", "changes nothing", severity="warning")
    for key in values:
        reason = why_ineffective(values, key) if key in keys.decided else None
        if reason is None:
            continue
        # Without it a run may not fit. In a pipeline it is that of another stage.
        is_quantized = key == "model.quantize" and values[key].value and mode != STAGED_MODE
        is_error = is_quantized or values["unread_settings"].value == "error"
        severity = "error" if is_error else "warning"
        yield _about(values, key, reason, is_removed=True, severity=severity)


_INSIDE = {
    "eval.every": ("evaluation", 0),
    "save.every": ("save", 0),
    "log.profile": ("profile", PROFILE_WARMUP),
}
"""What a run should reach, by the setting with its steps, and the steps before those."""


def check_lengths(
    values: Values, keys: KeySets, total: int, per_epoch: int | None = None
) -> Iterator[Diagnostic]:
    """Intervals and a warm-up beyond the `total` steps; `per_epoch` is None before data is read."""

    steps = {}
    for key in (*_INSIDE, "schedule.warmup"):
        length = values[key].value
        if isinstance(length, int) or (length is not None and per_epoch):
            steps[key] = duration_steps(length, per_epoch or 1, total)
    for key, (what, before) in _INSIDE.items():
        every = steps.get(key, 0)
        if key in keys.decided and every + before > total:
            problem = f"is {every} steps, and the run has {total}: no {what} falls inside it"
            yield _about(values, key, problem, new=max(1, total // 2), severity="warning")
    # A longer one is cut, with a note, unless the user has taken the limit away.
    key = "schedule.warmup"
    warmup = steps.get(key, 0)
    if warmup >= total and values["schedule.warmup_cap"].value is None:
        problem = f"is {warmup} steps, and the run has {total}: it would never reach its peak"
        severity = "error" if key in keys.decided else "warning"
        allowed = f"less than {total} steps"
        yield _about(values, key, problem, allowed=allowed, new="10%", severity=severity)


_MOST_LEFT_OUT = 0.1
"""Largest share of an epoch that is dropped without a warning."""
SPLIT = ("data.split_seed", "data.fold")
SPLIT_HINT = "in the task, split with self.split_groups(groups)"
BY_THE_LAUNCHER = {
    "mode",
    "promise",
    STAGES,
    "unread_settings",
    "model.family",
    "model.size",
    *BATCH_SETTINGS,
    LEAST,
    "engine.name",
    "engine.nproc",
    "engine.max_restarts",
    "limits.profile",
}
"""Settings that take effect before the run starts or after it; the run must read the others."""
_OF_LAUNCHER = ("continual.", "report.", "download.")
"""Sections of such settings."""


def check_before_training(
    resolved: Resolved, train_plan: TrainPlan, settings: TrackedSettings, prints: bool
) -> None:
    """Check lengths against the data, and find unused settings.

    Everything that reads settings must be built by now. Raises SettingsError; warnings go to
    stderr if this rank `prints`.
    """
    values = resolved.values
    keys = resolved.keys
    diagnostics: list[Diagnostic] = []
    if not train_plan.experience:  # which has a length and a schedule of its own
        total = train_plan.total_steps
        diagnostics += check_lengths(values, keys, total, train_plan.steps_per_epoch)
    diagnostics += _dropped_samples(resolved, train_plan)
    diagnostics += unused_diagnostics(resolved, settings_read(settings))
    wrong = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    if wrong:
        raise SettingsError(wrong)
    if diagnostics and prints:
        print(render(diagnostics), file=sys.stderr)


def _dropped_samples(resolved: Resolved, train_plan: TrainPlan) -> Iterator[Diagnostic]:
    """Much of an epoch that is dropped as a partial batch."""
    dropped = train_plan.dropped_samples
    batch = train_plan.global_batch
    length = train_plan.steps_per_epoch * batch + dropped
    if dropped <= _MOST_LEFT_OUT * length:
        return
    message = (
        f"{dropped} of {length} samples of an epoch are dropped: they fill no batch of {batch}"
    )
    hint = "a smaller batch, or more data"
    yield errors().about(resolved.values, GLOBAL, message, hint=hint, severity="warning")


def check_splits(task: Task, folder: Path) -> None:
    """Check that training and validation share no samples. Reads the run folder.

    Raises DataError if two splits are one object, or share groups.
    """
    from gearshift.models.common.split import SPLIT_FILE, overlapping_groups  # imports numpy

    allowed = "each group, a recording, patient or document, in one of train, val and test"
    if task.data("train") is task.data("val"):
        message = "the task trains and validates on the same samples"
        where = "data('train') and data('val') of the task"
        raise DataError(message, where=where, allowed=allowed)
    shared = overlapping_groups(folder)
    if shared:
        message = f"{len(shared)} groups are in two splits, such as {', '.join(shared[:3])}"
        raise DataError(message, where=str(folder / SPLIT_FILE), allowed=allowed)


class TrackedSettings:
    """The settings, or a section of them, by attribute; records each setting that is read.

    Sections share one record. Nothing can be written.
    """

    __slots__ = ("_prefix", "_record", "_settings")

    def __init__(
        self, settings: BaseModel, prefix: str = "", record: set[str] | None = None
    ) -> None:
        self._settings = settings
        self._prefix = prefix
        self._record = set() if record is None else record

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling look up names that settings never have
            raise AttributeError(name)
        value = getattr(self._settings, name)
        key = self._prefix + name.rstrip("_")  # `async_`, for `async` is a Python keyword
        if isinstance(value, BaseModel):
            return TrackedSettings(value, f"{key}.", self._record)
        self._record.add(key)
        return value


def retracked(view: TrackedSettings, settings: BaseModel) -> TrackedSettings:
    """A view of other settings with the record of `view`."""
    return TrackedSettings(settings, record=view._record)


def settings_read(view: TrackedSettings) -> frozenset[str]:
    """The keys that were read through a view or any of its sections."""
    return frozenset(view._record)


def unused_diagnostics(resolved: Resolved, read: Collection[str]) -> Iterator[Diagnostic]:
    """Diagnostics for the user's settings that nothing read.

    One of a split is an error: the result would pass for that of a fold.
    """
    values = resolved.values
    infos = setting_infos(values["model.family"].value)
    is_strict = resolved.settings.unread_settings == "error"
    for key in values:
        is_decided = key in resolved.keys.decided and values[key].value != infos[key].default
        is_read = key in read or key in BY_THE_LAUNCHER or key.startswith(_OF_LAUNCHER)
        if not is_decided or is_read or why_ineffective(values, key) is not None:
            continue
        yield _about(
            values,
            key,
            "is unused: nothing in this run reads it",
            is_removed=True,
            hint=SPLIT_HINT if key in SPLIT else None,
            severity="error" if is_strict or key in SPLIT else "warning",
        )
