"""Checks of the resolved settings that need no data: errors and warnings before a start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from operator import not_
from pathlib import Path
from typing import Any, NamedTuple

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, nearest_match, plain
from launcher.base.redaction import redact
from launcher.config import errors, paths
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import PROFILE_LAYER, RESUMED_LAYER, STAGED_MODE, USER_LAYERS, Values
from launcher.config.schema import PRETRAINED, config_of, setting_infos, task_class
from launcher.config.selection import STAGES, declared_stages, select_stages
from launcher.config.settings_file import nearest_file
from models.catalog import FAMILIES, is_custom
from models.common.hub import HUB
from training import duration
from training.settings import TRACKERS

_CONTINUAL = "continual.enabled"
_OF_OPTIMIZER = [
    f"optim.{key}"
    for key in ("name", "state", "groups", "layer_decay", "betas", "eps", "momentum", "weight_decay")
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


def _continual(key: str, when: Callable[[Any], Any], problem: str, allowed: str, fix: Any = None) -> Row:
    """A value that contradicts continual learning."""
    return Row(key, lambda v: v[_CONTINUAL] and when(v[key]), problem, f"{allowed}, with {_CONTINUAL}", fix)


def _limit(name: str) -> Row:
    key, critical = f"limits.{name}", f"limits.critical.{name}"
    return Row(key, lambda v: v[key] > v[critical], f"is above {critical}")


def _is_no_folder(path: str | None) -> bool:
    """Whether new files cannot arrive at a path; one that does not exist is another error."""
    return path is None or path.startswith(paths.EMBEDDED) or Path(path).expanduser().is_file()


_ZERO = [entry.name for entry in ENGINES.values() if entry.ds_config]
_TORCH_ALONE = [entry.name for entry in ENGINES.values() if not entry.needs]
_SHARDING = next(name for name in _TORCH_ALONE if ENGINES[name].shards_parameters)
_QUANTIZE = "model.quantize"
ROWS = (
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
        "optim.groups",
        lambda v: any(not 0 < factor < math.inf for factor in v["optim.groups"].values()),
        "has a factor that trains nothing: freeze such a part in a stage instead",
        "factors above 0",
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
    _continual("eval.test", bool, "measures at the end of a run; continual learning has none", "false"),
    _continual("data.control", "real".__ne__, "is a control run, which ends with its result", "real"),
    _continual("data.fold", lambda fold: type(fold) is str, "is a fold of groups, and more arrive", "null"),
    _continual("mode", STAGED_MODE.__eq__, "trains in stages", "another mode"),
    _continual("data.path", _is_no_folder, "is not a folder where files arrive", "a folder", "--data FOLDER"),
)


def check_settings(values: Values) -> list[Diagnostic]:
    """The errors and warnings that need no data."""
    now, found = {key: setting.value for key, setting in values.items()}, list[Diagnostic]()
    for row in ROWS:
        if row.key in now and (values[row.key].is_set_by_user or not row.warns) and row.when(now):
            parts = {"fix" if str(row.fix).startswith("--") else "new": row.fix, "allowed": row.allowed}
            parts["severity"] = "warning" if row.warns else "error"
            found.append(errors.about_value(values, row.key, row.problem, **parts))
    for check in (_stages, _trackers, _paths, _length, _batch, _promised_sizes, _no_effect):
        found += check(values)
    if values[_CONTINUAL].value and "data.path" not in values:
        where = errors.where(_CONTINUAL, values[_CONTINUAL].origin)
        message = f"{_CONTINUAL} needs a task with the setting data.path"
        found.append(Diagnostic(message, key="data.path", where=where))
    elif values[_CONTINUAL].value and (problem := why_ineffective(values, "data.path")):
        problem += "; continual learning trains on new files there"
        found.append(errors.about_value(values, "data.path", problem))
    if any(values[f"download.{name}"].value for name in ("fetch", "files", "variables")):
        from launcher.config import feature_checks  # for the runs that download their data

        found += feature_checks.check_download(values)
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


def _trackers(values: Values) -> Iterator[Diagnostic]:
    """Trackers whose package is not installed."""
    for text in values["track"].value:
        name = text.partition(":")[0]
        package = TRACKERS[name].extra
        if package is not None and find_spec(package) is None:
            problem = f"tracker {name} requires the package {package}"
            yield errors.about(values, "track", problem, fix=f"pip install 'gearshift[{package}]'")


def _paths(values: Values) -> Iterator[Diagnostic]:
    """Files that do not exist; and pipes, sockets and devices, which may be read for ever."""
    for key in ("data.path", PRETRAINED, "engine.ds_config"):
        path = values[key].value if key in values else None
        if path is None or path.startswith((paths.EMBEDDED, HUB)):
            continue
        full = Path(path).expanduser()
        if path and full.exists():
            continue
        if key == "data.path" and values["download.fetch"].value:
            from launcher.config import feature_checks  # for the runs that download their data

            if feature_checks.will_download(values, path):
                continue
        suggestion = nearest_file(path)
        parts = {"new": suggestion, "did_you_mean": suggestion}
        if key == PRETRAINED and values[key].origin.layer == RESUMED_LAYER:
            parts["fix"] = f"--set {PRETRAINED}=DIR  if it has moved"
        link = "is a link to a file that does not exist" if full.is_symlink() else "does not exist"
        yield errors.about_value(values, key, f"{link} ({full.absolute()})", **parts)
    for key in [key for key in paths.PATHS if key in values]:
        if paths.is_special(key, values):
            allowed = "a file or a folder on disk, not a pipe, socket or device"
            yield errors.about_value(values, key, "is not a regular file", allowed=allowed)
        text = str(values[key].value)
        if redact(text) != text:  # files of the run would name the password
            problem = "is a URL with a password"
            yield errors.about_value(values, key, problem, allowed="a path on this machine")


def _length(values: Values) -> Iterator[Diagnostic]:
    """What never happens before the end of a run of so many steps."""
    warmup, max_steps = values["schedule.warmup"].value, values["train.max_steps"].value
    if max_steps is not None:
        if isinstance(warmup, int):
            yield from long_warmup(values, warmup, max_steps)
        yield from too_rare(values, max_steps, None)


def long_warmup(values: Values, steps: int, total: int) -> Iterator[Diagnostic]:
    """The error of a warm-up as long as the run, unless it is cut, with a note."""
    key = "schedule.warmup"
    if steps < total or values["schedule.warmup_cap"].value is not None:
        return
    yield errors.about_value(
        values,
        key,
        f"is {steps} steps, and the run has {total}: the learning rate would never reach its peak",
        allowed=f"less than {total} steps",
        new="10%",
        severity="error" if values[key].is_set_by_user else "warning",
    )


def too_rare(values: Values, total: int, steps_per_epoch: int | None) -> Iterator[Diagnostic]:
    """Warnings for the user's intervals above the `total` steps of the run."""
    for key, what in (("eval.every", "evaluation"), ("save.every", "save")):
        every, is_known = values[key].value, steps_per_epoch is not None
        if not values[key].is_set_by_user or not (isinstance(every, int) or (is_known and every)):
            continue
        steps = duration.steps(every, steps_per_epoch or 1, total)
        if steps > total:
            problem = f"is {steps} steps, and the run has {total}: no {what} falls inside it"
            yield errors.about_value(values, key, problem, new=max(1, total // 2), severity="warning")


def _batch(values: Values) -> Iterator[Diagnostic]:
    """Warn if the user's micro-batch or accumulation change the global batch.

    An error is a mode that promises to keep it, with numbers that do not divide.
    """
    keys = [key for key in (MICRO, ACCUMULATION) if values[key].is_of_user]
    shipped = (values[MICRO].shipped or 1) * (values[ACCUMULATION].shipped or 1)
    new = (values[MICRO].value or 1) * (values[ACCUMULATION].value or 1)
    if keys and new != shipped and not values[GLOBAL].is_of_user:
        yield errors.about(
            values,
            GLOBAL,
            f"the global batch is {new} instead of {shipped}, by {' and '.join(keys)}",
            value=new,
            where="; ".join(errors.where(key, values[key].origin) for key in keys),
            fix=f"--set {GLOBAL}={shipped}  to keep it, or  --set {GLOBAL}={new}  to confirm",
            severity="warning",
        )
    default = (values[MICRO].mode_default or 1) * (values[ACCUMULATION].mode_default or 1)
    is_kept = values["promise"].value.get("global_batch") == {"at_least": 1, "at_most": 1}
    layers = {values[key].origin.layer for key in (GLOBAL, MICRO, ACCUMULATION)}
    if is_kept and shipped != default and layers.isdisjoint((PROFILE_LAYER, *USER_LAYERS)):
        problem = f"promises a global batch of {default}, and gives {shipped}"
        yield errors.about_value(values, "mode", problem, fix=f"--set {GLOBAL}={default}")


def _promised_sizes(values: Values) -> Iterator[Diagnostic]:
    """Sizes of no family in the user's promises, which would never be checked."""
    for promises, origin in values["promise"].all_values:
        for measure, bounds in promises.items() if origin.layer in USER_LAYERS else ():
            known = {
                size for name in (*FAMILIES, values["model.family"].value) for size in config_of(name).SIZES
            }
            for name in set((bounds or {}).get("sizes") or ()) - known:
                message, like = f"unknown size {name!r} in promise.{measure}", nearest_match(name, known)
                where = errors.where("promise", origin)
                parts = {"where": where, "allowed": ", ".join(sorted(known)), "did_you_mean": like}
                yield errors.about(values, "promise", message, **parts)


def _no_effect(values: Values) -> Iterator[Diagnostic]:
    """Modes and settings that change nothing."""
    mode = values["mode"].value
    others = [setting for key, setting in values.items() if key != "promise"]
    if mode != "default" and all(each.shipped == each.mode_default for each in others):
        yield errors.about_value(values, "mode", "changes nothing", severity="warning")
    for key, setting in values.items():
        if setting.is_set_by_user and (problem := why_ineffective(values, key)):
            # Without it a run may not fit. In a pipeline it is that of another stage.
            is_needed = key == _QUANTIZE and setting.value is not None and mode != STAGED_MODE
            is_error = is_needed or values["unread_settings"].value == "error"
            severity = "error" if is_error else "warning"
            yield errors.about_value(values, key, problem, fix="remove it", severity=severity)


def _stages(values: Values) -> Iterator[Diagnostic]:
    """Errors of mode staged, of the names in `stages`, and of missing first weights."""
    family, mode, names = (values[key].value for key in ("model.family", "mode", STAGES))
    stages = declared_stages(family)
    known = [stage.name for stage in stages]
    chosen = select_stages(names, stages)
    if not stages:
        able = ", ".join(name for name, each in FAMILIES.items() if each.stages)
        for key in [key for key, is_set in (("mode", mode == STAGED_MODE), (STAGES, names)) if is_set]:
            problem = f"needs stages, and {family} declares none"
            fix = "--mode resource-efficient  to lower peak memory in one run"
            yield errors.about_value(values, key, problem, allowed=f"families with stages: {able}", fix=fix)
    elif names and mode != STAGED_MODE:
        problem = f"needs mode staged, and the mode is {mode}"
        yield errors.about_value(values, STAGES, problem, fix="--mode staged")
    elif names and [stage.name for stage in chosen] != list(names):
        near = [nearest_match(name, known) for name in names]
        corrected = ",".join(name for name in known if name in near)
        is_option = values[STAGES].origin.where.startswith("--stage ")
        new = None if None in near else corrected if is_option else f"[{corrected}]"
        problem = f"is not a list of stages of {family} in their order"
        yield errors.about_value(values, STAGES, problem, allowed=", ".join(known), new=new)
    elif len(names) == 1 and chosen[0].loads is not None and values[chosen[0].loads].value is None:
        earlier = " or ".join(chosen[0].of)
        yield Diagnostic(
            f"stage {chosen[0].name} starts from the weights of stage {earlier}, and no run is given",
            key=chosen[0].loads,
            where=errors.where(STAGES, values[STAGES].origin),
            allowed=f"--from RUN, a run of stage {earlier}; or all stages, --mode staged",
            fix="--from RUN",
        )
