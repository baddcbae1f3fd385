"""Checks of settings, before a start and once the data is read; and settings that nothing reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.util import find_spec
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from gearshift.launcher.config import errors, paths
from gearshift.launcher.config.batching import (
    ACCUMULATION,
    GLOBAL,
    LEAST,
    MICRO,
    batch_line,
    proposed_batch,
)
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
    RESUMED_LAYER,
    STAGED_MODE,
    USER_LAYERS,
    KeySets,
    Resolved,
    Values,
)
from gearshift.launcher.config.schema import PRETRAINED, config_of, setting_infos, task_class
from gearshift.launcher.config.selection import STAGES, declared_stages, select_stages
from gearshift.launcher.config.settings_file import nearest_file
from gearshift.models.base import DataError
from gearshift.models.catalog import FAMILIES, is_custom
from gearshift.models.common.data_files import install_command
from gearshift.models.common.hub import HUB
from gearshift.training.settings import PROFILE_WARMUP, duration_steps
from gearshift.training.trackers.catalog import TRACKERS

if TYPE_CHECKING:
    from gearshift.models.base import Task
    from gearshift.training.train_plan import TrainPlan

_CONTINUAL = "continual.enabled"
_OF_OPTIMIZER = [
    f"optim.{key}"
    for key in (
        "name",
        "state",
        "groups",
        "layer_decay",
        "betas",
        "eps",
        "momentum",
        "weight_decay",
    )
]


class Row(NamedTuple):
    """A check: where `when` is true of the values, by key, the setting `key` has a `problem`."""

    key: str
    when: Callable[[Mapping[str, Any]], Any]
    problem: str
    allowed: str | None = None
    fix: Any = None
    """A line to type, which starts with --; or the value to set instead."""
    warns: bool = False
    """Whether it is a warning, if the user has set the value."""


def _continual(
    key: str, when: Callable[[Any], Any], problem: str, allowed: str, fix: Any = None
) -> Row:
    """A value that contradicts continual learning."""
    return Row(
        key, lambda v: v[_CONTINUAL] and when(v[key]), problem, f"{allowed}, with {_CONTINUAL}", fix
    )


def _limit(name: str) -> Row:
    key = f"limits.{name}"
    critical = f"limits.critical.{name}"
    return Row(key, lambda v: v[key] > v[critical], f"is above {critical}")


def _is_no_folder(path: str | None) -> bool:
    """Whether new files cannot arrive at a path; one that does not exist is another error."""
    return path is None or path.startswith(paths.EMBEDDED) or Path(path).expanduser().is_file()


_ZERO = [entry.name for entry in ENGINES.values() if entry.ds_config]
_TORCH_ALONE = [entry.name for entry in ENGINES.values() if not entry.needs]
_SHARDING = next(name for name in _TORCH_ALONE if ENGINES[name].shards_parameters)
_QUANTIZE = "model.quantize"
_STAGED = (
    f"families with stages: {', '.join(name for name, each in FAMILIES.items() if each.stages)}"
)
ROWS = (
    Row(
        "mode",
        lambda v: v["mode"] == STAGED_MODE and not declared_stages(v["model.family"]),
        "needs stages, and the model family declares none",
        _STAGED,
        "--mode resource-efficient",
    ),
    Row(
        STAGES,
        lambda v: v[STAGES] and v["mode"] != STAGED_MODE,
        "needs mode staged",
        "with --mode staged",
    ),
    *map(_limit, ("ram", "gpu", "swap", "disk")),
    Row(
        "engine.name",
        lambda v: v["engine.name"] not in _TORCH_ALONE and has_own_optimizer(v["model.family"]),
        "gives parts of parameters to an optimizer, and the task has its own",
        ", ".join(_TORCH_ALONE),
        f"--engine {_SHARDING}",
    ),
    Row(
        "engine.ds_config",
        lambda v: v["engine.ds_config"] is not None and v["engine.name"] not in _ZERO,
        "needs a DeepSpeed engine",
        f"with the engines {', '.join(_ZERO)}",
        f"--engine {_ZERO[0]}",
    ),
    Row(
        _QUANTIZE,
        lambda v: v[_QUANTIZE] and v.get("model.lora.rank", 0) is None,
        "is for frozen weights, and model.lora.rank is null",
        "with model.lora.rank",
    ),
    Row(
        _QUANTIZE,
        lambda v: v[_QUANTIZE] and v["precision"] == "fp8",
        "is for products in 16 or 32 bits, and precision is fp8",
        "with precision bf16, fp16, tf32 or fp32",
        "--precision bf16",
    ),
    Row(
        "train.epochs",
        lambda v: v["train.epochs"] is None and v["train.max_steps"] is None,
        "is null, and so is train.max_steps: the run has no end",
        "one of both",
        1,
    ),
    Row(
        "save.last",
        lambda v: not v["save.last"] and v["save.every"] is None and not v["save.keep_best"],
        "means that no checkpoint is ever saved",
        fix=True,
        warns=True,
    ),
    _continual("save.last", not_, "leaves no checkpoint for the next experience", "true", True),
    _continual(
        "eval.test", bool, "measures at the end of a run; continual learning has none", "false"
    ),
    _continual(
        "data.control", "real".__ne__, "is a control run, which ends with its result", "real"
    ),
    _continual(
        "data.fold", lambda fold: type(fold) is str, "is a fold of groups, and more arrive", "null"
    ),
    _continual("mode", STAGED_MODE.__eq__, "trains in stages", "another mode"),
    _continual(
        "data.path",
        _is_no_folder,
        "is not a folder where files arrive",
        "a folder",
        "--data FOLDER",
    ),
)


def check_settings(values: Values, keys: KeySets) -> list[Diagnostic]:
    """The errors and warnings that need no data."""
    now = {key: setting.value for key, setting in values.items()}
    found = list[Diagnostic]()
    for row in ROWS:
        if row.key in now and (row.key in keys.decided or not row.warns) and row.when(now):
            parts = {
                "fix" if str(row.fix).startswith("--") else "new": row.fix,
                "allowed": row.allowed,
            }
            parts["severity"] = "warning" if row.warns else "error"
            found.append(errors.about_value(values, row.key, row.problem, **parts))
    found += [*_stages_and_trackers(values), *_paths(values), *_of_user(values, keys)]
    if now[_CONTINUAL]:
        is_setting = "data.path" in values
        problem = (
            why_ineffective(values, "data.path") if is_setting else "is no setting of the task"
        )
        if problem:
            message = f"data.path {problem}; {_CONTINUAL} trains on new files there"
            key = "data.path" if is_setting else _CONTINUAL
            found.append(errors.about(values, key, message, key="data.path"))
    if any(now[f"download.{name}"] for name in ("fetch", "files", "variables")):
        from gearshift.launcher.config import (
            feature_checks,
        )  # for the runs that download their data

        found += feature_checks.check_download(values, keys)
    return found


def why_ineffective(values: Values, key: str) -> str | None:
    """Why a setting has no effect with the others; None if it has one."""
    family = values["model.family"].value
    if key in _OF_OPTIMIZER and has_own_optimizer(family):
        return f"has no effect: {family} has its own optimizer"
    info = setting_infos(family)[key]
    for other, wanted in info.only_if.items():
        if values[other].value not in wanted:
            needed = " or ".join(map(plain, wanted))
            return f"has no effect: {other} is {plain(values[other].value)}, not {needed}"
    for other, unwanted in info.unless.items():
        if other in values and values[other].value in unwanted:  # a custom task may lack it
            return f"has no effect: {other} is {plain(values[other].value)}"
    return None


def has_own_optimizer(family: str) -> bool:
    """Whether the class of a custom task builds the optimizer."""
    return is_custom(family) and hasattr(task_class(family), "optimizer")


def _stages_and_trackers(values: Values) -> Iterator[Diagnostic]:
    """Errors of the order and the first weights of stages, and trackers that are not installed."""
    family, mode, names = (values[key].value for key in ("model.family", "mode", STAGES))
    stages = declared_stages(family) if mode == STAGED_MODE and names else ()
    chosen = select_stages(names, stages)
    known = [stage.name for stage in stages]
    if stages and [stage.name for stage in chosen] != list(names):
        meant = {nearest_match(name, known) for name in names}
        new = [name for name in known if name in meant]
        problem = f"is not a list of stages of {family} in their order"
        yield errors.about_value(values, STAGES, problem, allowed=", ".join(known), new=new or None)
    elif len(chosen) == 1 and (key := chosen[0].loads) is not None and values[key].value is None:
        message = f"stage {names[0]} starts from the weights of another stage, and no run is given"
        allowed = (
            f"--from RUN, a run of stage {' or '.join(chosen[0].of)}; or all stages, --mode staged"
        )
        yield errors.about(
            values, STAGES, message, key=key, value=None, allowed=allowed, fix="--from RUN"
        )
    for text in values["track"].value:
        name = text.partition(":")[0]
        package = TRACKERS[name].extra
        if package is not None and find_spec(package) is None:
            problem = f"tracker {name} requires the package {package}"
            yield errors.about(values, "track", problem, fix=install_command(package))


def _paths(values: Values) -> Iterator[Diagnostic]:
    """Errors of files that do not exist; of pipes and devices, which may be read for ever; of URLs."""
    for key in [key for key in paths.PATHS if key in values]:
        text = values[key].value
        if text is None or text.startswith((paths.EMBEDDED, HUB)):
            continue
        if redact(text) != text:  # files of the run would name the password
            problem = "is a URL with a password"
            yield errors.about_value(values, key, problem, allowed="a path on this machine")
        path = Path(text).expanduser()
        asks = None
        if text and path.exists():
            if not path.is_file() and not path.is_dir():
                allowed = "a file or a folder on disk, not a pipe, socket or device"
                yield errors.about_value(values, key, "is not a regular file", allowed=allowed)
            continue
        if key == "data.path" and values["download.fetch"].value:
            from gearshift.launcher.config import (
                feature_checks,
            )  # for the runs that download their data

            if feature_checks.will_download(values, text):
                continue
            asks = None if feature_checks.is_requested(values) else "--download-data"
        if key in ("data.path", PRETRAINED, "engine.ds_config"):
            link = "is a link to a file that" if path.is_symlink() else ""
            like = nearest_file(text)
            problem = f"{link} does not exist ({path.absolute()})".strip()
            more = {"new": like, "did_you_mean": like}
            if asks is not None:
                more["fix"] = asks
            if key == PRETRAINED and values[key].origin.layer == RESUMED_LAYER:
                more["fix"] = f"--set {PRETRAINED}=DIR  if it has moved"
            yield errors.about_value(values, key, problem, **more)


def _of_user(values: Values, keys: KeySets) -> Iterator[Diagnostic]:
    """What the user set and would not get: lengths, batch numbers, promises, settings without effect."""
    if (max_steps := values["train.max_steps"].value) is not None:
        yield from check_lengths(values, keys, max_steps)

    # A micro-batch or accumulation that change the global batch; and a mode that promises to keep it.
    now = {key: values[key].value for key in BATCH_SETTINGS}
    new, shipped, default = (
        (numbers[MICRO] or 1) * (numbers[ACCUMULATION] or 1)
        for numbers in (now, keys.shipped, keys.defaults)
    )
    users = [key for key in (MICRO, ACCUMULATION) if key in keys.user]
    if users and new != shipped and GLOBAL not in keys.user:
        message = f"the global batch is {new} instead of {shipped}, by {' and '.join(users)}"
        fix = f"--set {GLOBAL}={shipped}  to keep it, or  --set {GLOBAL}={new}  to confirm"
        where = "; ".join(errors.where(key, values[key].origin) for key in users)
        parts = {"value": new, "where": where, "fix": fix, "severity": "warning"}
        yield errors.about(values, GLOBAL, message, **parts)
    is_kept = values["promise"].value.get("global_batch") == {"at_least": 1, "at_most": 1}
    if is_kept and shipped != default and keys.user.isdisjoint(BATCH_SETTINGS):
        problem = f"promises a global batch of {default}, and gives {shipped}"
        yield errors.about_value(values, "mode", problem, fix=f"--set {GLOBAL}={default}")

    # Sizes of no family in promises, which would never be checked.
    for promises, origin in values["promise"].all_values:
        named = [name for bounds in promises.values() for name in (bounds or {}).get("sizes") or ()]
        if named and origin.layer in USER_LAYERS:
            sizes = {
                size
                for f in (*FAMILIES, values["model.family"].value)
                for size in config_of(f).SIZES
            }
            for name in [name for name in named if name not in sizes]:
                parts = {
                    "allowed": ", ".join(sorted(sizes)),
                    "did_you_mean": nearest_match(name, sizes),
                }
                parts["where"] = errors.where("promise", origin)
                yield errors.about(values, "promise", f"unknown size {name!r} in promise", **parts)

    mode = values["mode"].value
    if mode != "default" and keys.changed <= {"promise"}:
        yield errors.about_value(values, "mode", "changes nothing", severity="warning")
    for key in [key for key in values if key in keys.decided]:
        if reason := why_ineffective(values, key):
            # Without it a run may not fit. In a pipeline it is that of another stage.
            is_needed = key == _QUANTIZE and values[key].value is not None and mode != STAGED_MODE
            severity = (
                "error" if is_needed or values["unread_settings"].value == "error" else "warning"
            )
            yield errors.about_value(values, key, reason, fix="remove it", severity=severity)


def check_lengths(
    values: Values, keys: KeySets, total: int, per_epoch: int | None = None
) -> Iterator[Diagnostic]:
    """Intervals and a warm-up beyond the `total` steps; `per_epoch` is None before the data is read."""

    def steps(key: str) -> int:
        length = values[key].value
        is_known = isinstance(length, int) or (per_epoch is not None and length is not None)
        return duration_steps(length, per_epoch or 1, total) if is_known else 0

    for key, what in (("eval.every", "evaluation"), ("save.every", "save")):
        if key in keys.decided and (every := steps(key)) > total:
            problem = f"is {every} steps, and the run has {total}: no {what} falls inside it"
            yield errors.about_value(
                values, key, problem, new=max(1, total // 2), severity="warning"
            )
    # A longer one is cut, with a note, unless the user has taken the limit away.
    if (warmup := steps(key := "schedule.warmup")) >= total and values[
        "schedule.warmup_cap"
    ].value is None:
        problem = f"is {warmup} steps, and the run has {total}: the learning rate would never reach its peak"
        severity = "error" if key in keys.decided else "warning"
        parts = {"allowed": f"less than {total} steps", "new": "10%", "severity": severity}
        yield errors.about_value(values, key, problem, **parts)


_MOST_LEFT_OUT = 0.1
"""Largest share of an epoch that is dropped without a warning."""
SPLIT = ("data.split_seed", "data.fold")
SPLIT_FIX = "in the task, split with self.split_groups(groups); or remove it"
BY_THE_LAUNCHER = {
    "mode",
    "promise",
    STAGES,
    "unread_settings",
    "model.family",
    "model.size",
    *BATCH_SETTINGS,
}
BY_THE_LAUNCHER |= {LEAST, "engine.name", "engine.nproc", "engine.max_restarts", "limits.profile"}
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
    diagnostics = list[Diagnostic]()
    if not train_plan.experience:  # which has a length and a schedule of its own
        diagnostics += check_lengths(
            values, keys, train_plan.total_steps, train_plan.steps_per_epoch
        )
    if not train_plan.experience and not train_plan.first_step:  # a resumed run has few steps left
        profiled = values["log.profile"].value
        last = train_plan.end_step
        # A patience that has too few evaluations to act.
        count = train_plan.evaluations(0, last - 1)
        for key, also in (
            ("stop.patience", "stop.patience"),
            ("schedule.patience", "schedule.name"),
        ):
            patience = values[key].value
            is_users = not keys.decided.isdisjoint((key, also))
            if (
                is_users
                and patience is not None
                and count <= patience
                and not why_ineffective(values, key)
            ):
                problem = f"cannot act: it needs {patience + 1} evaluations before the last step, not {count}"
                new = (
                    {"did_you_mean": f"eval.every={every}"}
                    if (every := (last - 1) // (patience + 1))
                    else {}
                )
                diagnostics.append(
                    errors.about_value(values, key, problem, severity="warning", **new)
                )
        if profiled is not None and profiled > last - PROFILE_WARMUP:
            problem = f"needs {profiled + PROFILE_WARMUP} steps, and the run has {last}"
            new_steps = max(0, last - PROFILE_WARMUP) or None
            diagnostics.append(errors.about_value(values, "log.profile", problem, new=new_steps))
    # Much of an epoch that is dropped as a partial batch.
    dropped = train_plan.dropped_samples
    batch = train_plan.global_batch
    length = train_plan.steps_per_epoch * batch + dropped
    if dropped > _MOST_LEFT_OUT * length:
        new_batch = proposed_batch(length, batch, train_plan.world_size) or batch
        line = batch_line(values, keys, resolved.batching.micro_batch, new_batch)
        fix = line if length % new_batch < length % batch else "use more data"
        message = (
            f"{dropped} of {length} samples of an epoch are dropped: they fill no batch of {batch}"
        )
        diagnostics.append(errors.about(values, GLOBAL, message, fix=fix, severity="warning"))
    diagnostics += unused_diagnostics(resolved, settings_read(settings))
    if wrong := [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]:
        raise SettingsError(wrong)
    if diagnostics and prints:
        print(render(diagnostics), file=sys.stderr)


def check_splits(task: Task, folder: Path) -> None:
    """Check that training and validation share no samples. Reads the run folder.

    Raises DataError if two splits are one object, or share groups.
    """
    from gearshift.models.common.split import SPLIT_FILE, overlapping_groups  # imports numpy

    allowed = "each group, a recording, patient or document, in one of train, val and test"
    if task.data("train") is task.data("val"):
        where = "data('train') and data('val') of the task"
        raise DataError(
            "the task trains and validates on the same samples", where=where, allowed=allowed
        )
    if shared := overlapping_groups(folder):
        message = f"{len(shared)} groups are in two splits, such as {', '.join(shared[:3])}"
        raise DataError(message, where=str(folder / SPLIT_FILE), allowed=allowed)


class TrackedSettings:
    """The settings, or a section of them, by attribute; records each setting that is read.

    Sections share one record. Nothing can be written.
    """

    __slots__ = ("_prefix", "_seen", "_settings")

    def __init__(self, settings: BaseModel, prefix: str = "", seen: set[str] | None = None) -> None:
        self._settings = settings
        self._prefix = prefix
        self._seen = set() if seen is None else seen

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling look up names that settings never have
            raise AttributeError(name)
        value = getattr(self._settings, name)
        key = self._prefix + name.rstrip("_")  # `async_`, for `async` is a Python keyword
        if isinstance(value, BaseModel):
            return TrackedSettings(value, f"{key}.", self._seen)
        self._seen.add(key)
        return value


def retracked(view: TrackedSettings, settings: BaseModel) -> TrackedSettings:
    """A view of other settings with the record of `view`."""
    return TrackedSettings(settings, seen=view._seen)


def settings_read(view: TrackedSettings) -> frozenset[str]:
    """The keys that were read through a view or any of its sections."""
    return frozenset(view._seen)


def unused_keys(values: Values, read: Collection[str]) -> list[str]:
    """The settings that a layer above built-in changed, that have an effect, and that nothing read."""
    infos = setting_infos(values["model.family"].value)
    return [
        key
        for key, setting in values.items()
        if key not in read and key not in BY_THE_LAUNCHER and not key.startswith(_OF_LAUNCHER)
        if setting.value != infos[key].default and why_ineffective(values, key) is None
    ]


def unused_diagnostics(resolved: Resolved, read: Collection[str]) -> Iterator[Diagnostic]:
    """Diagnostics for the user's settings that nothing read.

    One of a split is an error: the result would pass for that of a fold.
    """
    is_strict = resolved.settings.unread_settings == "error"
    for key in unused_keys(resolved.values, read):
        if key in resolved.keys.decided:
            severity = "error" if is_strict or key in SPLIT else "warning"
            parts = {"fix": SPLIT_FIX if key in SPLIT else "remove it", "severity": severity}
            problem = "is unused: nothing in this run reads it"
            yield errors.about_value(resolved.values, key, problem, **parts)
