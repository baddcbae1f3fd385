"""Checks of the resolved settings that need no data: errors and warnings before a start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, nearest_match, plain, shown
from launcher.base.redaction import redact
from launcher.config import errors, paths
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import (
    MODE_LAYER,
    PROFILE_LAYER,
    RESUMED_LAYER,
    STAGED_MODE,
    USER_LAYERS,
    Setting,
    Values,
)
from launcher.config.schema import PRETRAINED, setting_infos, task_class
from launcher.config.selection import KEY, declared_stages, select_stages
from models.catalog import FAMILIES, is_custom
from models.common.hub import HUB
from training import duration
from training.settings import TRACKERS

_OF_OPTIMIZER = [
    f"optim.{key}"
    for key in ("name", "state", "groups", "layer_decay", "betas", "eps", "momentum", "weight_decay")
]


def check_settings(values: Values) -> list[Diagnostic]:
    """The errors and warnings that need no data."""
    return [diagnostic for check in CHECKS for diagnostic in check(values)]


def why_ineffective(values: Values, key: str) -> str | None:
    """Why a setting has no effect with the others; None if it has one."""
    found = _ineffective(values, key)
    return None if found is None else found[0]


def _ineffective(values: Values, key: str) -> tuple[str, str] | None:
    """Why a setting has no effect, and the other setting that decides it."""
    family = values["model.family"].value
    if key in _OF_OPTIMIZER and _has_own_optimizer(family):
        return f"has no effect: {family} has its own optimizer", "model.family"
    leaf = setting_infos(family)[key]
    for other, wanted in leaf.only_if.items():
        if values[other].value not in wanted:
            needed = " or ".join(map(plain, wanted))
            return f"has no effect: {other} is {plain(values[other].value)}, not {needed}", other
    for other, unwanted in leaf.unless.items():
        if other in values and values[other].value in unwanted:  # a custom task may lack it
            return f"has no effect: {other} is {plain(values[other].value)}", other
    return None


def _fix(values: Values, key: str, new: Any) -> str:
    """The line to type instead of the value."""
    return errors.fix_line(key, values[key].origin, new)


def _has_own_optimizer(family: str) -> bool:
    return is_custom(family) and hasattr(task_class(family), "optimizer")


def _engine(values: Values) -> Iterator[Diagnostic]:
    """What an engine cannot do: the optimizer of a custom task, and a DeepSpeed config."""
    family, engine = values["model.family"].value, values["engine.name"].value
    torch_alone = [entry for entry in ENGINES.values() if not entry.needs]
    able = [entry.name for entry in torch_alone]
    if engine not in able and _has_own_optimizer(family):
        yield errors.about(
            values,
            "engine.name",
            f"{family} has its own optimizer, to which engine {engine} gives parts of parameters",
            allowed=", ".join(able),
            fix=f"--engine {next(each.name for each in torch_alone if each.shards_parameters)}",
        )
    zero = [entry.name for entry in ENGINES.values() if entry.ds_config]
    if values["engine.ds_config"].value is not None and engine not in zero:
        yield errors.about(
            values,
            "engine.ds_config",
            f"engine.ds_config needs a DeepSpeed engine, and the engine is {engine}",
            allowed=f"with the engines {', '.join(zero)}",
            fix=f"--engine {zero[0]}",
        )


def _quantize(values: Values) -> Iterator[Diagnostic]:
    """What has no layers in 4 bits: training without adapters, and products in 8 bits."""
    key = "model.quantize"
    if key not in values or values[key].value is None:
        return
    if "model.lora.rank" in values and values["model.lora.rank"].value is None:
        problem = "is for frozen weights, and model.lora.rank is null"
        folder = " model.pretrained=FOLDER" if values[PRETRAINED].value is None else ""
        fix = f"--set model.lora.rank=16{folder and ' --set' + folder}"
        yield errors.about_value(values, key, problem, allowed="with model.lora.rank", fix=fix)
    if values["precision"].value == "fp8":
        problem = "is for products in 16 or 32 bits, and precision is fp8"
        allowed = "with precision bf16, fp16, tf32 or fp32"
        yield errors.about_value(values, key, problem, allowed=allowed, fix="--precision bf16")


def _trackers(values: Values) -> Iterator[Diagnostic]:
    """Trackers whose package is not installed."""
    for text in values["track"].value:
        name = text.partition(":")[0]
        package = TRACKERS[name].extra
        if package is not None and find_spec(package) is None:
            problem = f"tracker {name} requires the package {package}"
            yield errors.about(values, "track", problem, fix=f"pip install 'gearshift[{package}]'")


_FREEZERS = {"encoder": ("model.freeze_encoder", "true"), "layers": ("model.freeze_layers", "N")}
"""The setting of a family that freezes a part."""


def _groups(values: Values) -> Iterator[Diagnostic]:
    """Factors of the learning rate that train nothing, or are no factors."""
    for part, factor in values["optim.groups"].value.items():
        if 0 < factor < math.inf:
            continue
        key, value = _FREEZERS.get(part, ("", ""))
        fix = f"freeze it in a stage instead:  --set {key}={value}"
        if key not in values:
            fix = "freeze it in a stage instead: requires_grad_(False) in build of the task"
        yield errors.about(
            values,
            "optim.groups",
            f"optim.groups gives {part!r} the factor {plain(factor)}",
            allowed="above 0",
            fix=None if factor else fix,
        )


def _paths(values: Values) -> Iterator[Diagnostic]:
    """Files that do not exist; and pipes, sockets and devices, which may be read for ever."""
    for key in ("data.path", "data.text", PRETRAINED, "engine.ds_config"):
        path = values[key].value if key in values else None
        if path is None or path.startswith((paths.EMBEDDED, HUB)) or _is_there(values, key, path):
            continue
        full, suggestion = Path(path).expanduser(), errors.nearest_file(path)
        fix = suggestion and _fix(values, key, suggestion)
        if key == PRETRAINED and values[key].origin.layer == RESUMED_LAYER:
            fix = f"--set {PRETRAINED}=DIR  if it has moved"
        link = "is a link to a file that does not exist" if full.is_symlink() else "does not exist"
        problem = f"{link} ({full.absolute()})"
        yield errors.about_value(values, key, problem, did_you_mean=suggestion, fix=fix)
    for key in paths.PATHS:
        if key in values and paths.is_special(key, values):
            allowed = "a file or a folder on disk, not a pipe, socket or device"
            yield errors.about_value(values, key, "is not a regular file", allowed=allowed)
        text = str(values[key].value) if key in values else ""
        if redact(text) != text:  # files of the run would name the password
            problem = "is a URL with a password"
            yield errors.about_value(values, key, problem, allowed="a path on this machine")


def _is_there(values: Values, key: str, path: str) -> bool:
    """Whether the file of a setting exists, will be downloaded, or is not needed."""
    if path and Path(path).expanduser().exists():
        return True
    if key == "data.path" and values["download.fetch"].value:
        from launcher.config import feature_checks

        return feature_checks.will_download(values, path)
    return key == "data.text" and why_ineffective(values, key) is not None


def _limits(values: Values) -> Iterator[Diagnostic]:
    for name in ("ram", "gpu", "swap", "disk"):
        low, high = values[f"limits.{name}"], values[f"limits.critical.{name}"]
        if low.value > high.value:
            problem = f"is above limits.critical.{name} {plain(high.value)}"
            text = f"{problem} from {high.origin.where}"
            yield errors.about_value(values, f"limits.{name}", text)


def _length(values: Values) -> Iterator[Diagnostic]:
    """A run without an end, and what never happens before its end."""
    warmup, max_steps = values["schedule.warmup"].value, values["train.max_steps"].value
    if values["train.epochs"].value is None and max_steps is None:
        problem = "is null, and so is train.max_steps: the run has no end"
        fix = _fix(values, "train.epochs", 1)
        yield errors.about_value(values, "train.epochs", problem, allowed="one of both", fix=fix)
    if max_steps is not None:
        if isinstance(warmup, int):
            yield from long_warmup(values, warmup, max_steps)
        yield from too_rare(values, max_steps, None)
    last = values["save.last"]
    is_saved = last.value or values["save.every"].value is not None or values["save.keep_best"].value
    if not is_saved and last.is_set_by_user:
        problem = "means that no checkpoint is ever saved"
        fix = _fix(values, "save.last", True)
        yield errors.about_value(values, "save.last", problem, fix=fix, severity="warning")


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
        did_you_mean="10%",
        fix=_fix(values, key, "10%"),
        severity="error" if values[key].is_set_by_user else "warning",
    )


def too_rare(values: Values, total: int, steps_per_epoch: int | None) -> Iterator[Diagnostic]:
    """Warnings for the user's intervals above the `total` steps of the run."""
    for key, what in (("eval.every", "evaluation"), ("save.every", "save")):
        every = values[key].value
        if every is None or not values[key].is_set_by_user:
            continue
        if steps_per_epoch is None and not isinstance(every, int):
            continue
        steps = duration.steps(every, steps_per_epoch or 1, total)
        if steps > total:
            problem = f"is {steps} steps, and the run has {total}: no {what} falls inside it"
            fix = _fix(values, key, max(1, total // 2))
            yield errors.about_value(values, key, problem, fix=fix, severity="warning")


def _batch(values: Values) -> Iterator[Diagnostic]:
    """Warn if micro-batch or accumulation change the global batch.

    An error is a mode that promises to keep it, with numbers that do not divide.
    """

    def product(read: Callable[[Setting], Any]) -> int:
        return (read(values[MICRO]) or 1) * (read(values[ACCUMULATION]) or 1)

    pair = (MICRO, ACCUMULATION)
    shipped = product(lambda setting: setting.shipped)
    new = product(lambda setting: setting.value)
    keys = [key for key in pair if values[key].is_of_user]
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
    default = product(lambda setting: setting.mode_default)
    layers = {values[key].origin.layer for key in (GLOBAL, *pair)}
    is_of_mode = layers.isdisjoint((PROFILE_LAYER, *USER_LAYERS))
    promise = values["promise"].value.get("global_batch")
    if promise == {"at_least": 1, "at_most": 1} and is_of_mode and shipped != default:
        lines = dict.fromkeys(values[key].origin.where for key in pair)
        problem = f"promises a global batch of {default}, and gives {shipped} by "
        fix = f"--set {GLOBAL}={default}"
        yield errors.about_value(values, "mode", problem + " and ".join(lines), fix=fix)


_EFFECTIVE_BY: Mapping[tuple[str, str], str] = {
    (PRETRAINED, "null"): f"--set {PRETRAINED}=FOLDER  of a local model; or  remove it",
    ("model.freeze_encoder", "false"): "--set model.freeze_encoder=true; or  remove it",
}
"""The fix of a setting without effect, by the other setting that decides it and its value."""


def _no_effect(values: Values) -> Iterator[Diagnostic]:
    """Modes and settings that change nothing."""
    changes = (
        origin.layer == MODE_LAYER and new != old
        for key, setting in values.items()
        if key != "promise"
        for (new, origin), (old, _) in pairwise(setting.all_values)
    )
    if values["mode"].value != "default" and not any(changes):
        yield errors.about_value(values, "mode", "changes nothing", severity="warning")
    severity = "error" if values["unread_settings"].value == "error" else "warning"
    for key, setting in values.items():
        if setting.is_set_by_user and (found := _ineffective(values, key)):
            problem, other = found
            fix = _EFFECTIVE_BY.get((other, plain(values[other].value)), "remove it")
            # Without it a run may not fit. In a pipeline it is that of another stage.
            is_needed = key == "model.quantize" and setting.value is not None
            grade = "error" if is_needed and values["mode"].value != STAGED_MODE else severity
            yield errors.about_value(values, key, problem, fix=fix, severity=grade)


def _features(values: Values) -> Iterator[Diagnostic]:
    """The checks of continual learning and downloads, for the runs that use them."""
    keys = ("continual.enabled", "download.fetch", "download.files", "download.variables")
    if not any(values[key].value for key in keys):
        return
    from launcher.config import feature_checks

    yield from feature_checks.check_continual(values)
    is_watched = values["continual.enabled"].value and "data.path" in values
    if is_watched and (problem := why_ineffective(values, "data.path")):
        problem += "; continual learning trains on new files there"
        yield errors.about_value(values, "data.path", problem)
    yield from feature_checks.check_download(values)


def _stages(values: Values) -> Iterator[Diagnostic]:
    """Errors of mode staged, of the names in `stages`, and of missing first weights."""
    family, mode, names = (values[key].value for key in ("model.family", "mode", KEY))
    stages = declared_stages(family)
    known = [stage.name for stage in stages]
    if not stages:
        able = [name for name, entry in FAMILIES.items() if entry.stages]
        for key in [key for key, is_set in (("mode", mode == STAGED_MODE), (KEY, names)) if is_set]:
            yield errors.about_value(
                values,
                key,
                f"needs stages, and {family} declares none",
                allowed=f"families that declare stages: {', '.join(able)}",
                fix="--mode resource-efficient  to lower peak memory in one run",
            )
    elif names and mode != STAGED_MODE:
        message = f"stages {shown(names)} needs mode staged, and the mode is {mode}"
        yield errors.about(values, KEY, message, fix="--mode staged")
    elif [name for name in known if name in names] != list(names):
        yield from _wrong_names(values, names, known)
    elif len(names) == 1:
        [stage] = select_stages(names, stages)
        if stage.loads is not None and values[stage.loads].value is None:
            earlier = " or ".join(stage.of)
            yield Diagnostic(
                f"stage {stage.name} starts from the weights of stage {earlier}, and no run is given",
                key=stage.loads,
                where=errors.where(KEY, values[KEY].origin),
                allowed=f"--from RUN, a run of stage {earlier}; or all stages, --mode staged",
                fix="--from RUN",
            )


def _wrong_names(values: Values, names: Sequence[str], known: Sequence[str]) -> Iterator[Diagnostic]:
    """Errors for unknown names of stages; without any, for a wrong order."""

    def error(message: str, suggestion: str | None, corrected: Sequence[str]) -> Diagnostic:
        # Without blanks, at which a shell would split it.
        fix = suggestion and _fix(values, KEY, f"[{','.join(corrected)}]")
        if fix and values[KEY].origin.where.startswith("--stage "):
            fix = f"--stage {suggestion}"
        parts = {"allowed": ", ".join(known), "did_you_mean": suggestion, "fix": fix}
        return errors.about(values, KEY, message, **parts)

    unknown = [name for name in names if name not in known]
    for name in unknown:
        suggestion = nearest_match(name, known)
        corrected = [str(suggestion) if other == name else other for other in names]
        yield error(f"unknown stage '{name}'", suggestion, corrected)
    ordered = [name for name in known if name in names]
    if not unknown:
        problem = "name one twice" if len(ordered) < len(names) else "are not in declared order"
        message = f"stages {shown(names)} {problem}"
        yield error(message, f"[{','.join(ordered)}]", ordered)


CHECKS: tuple[Callable[[Values], Iterator[Diagnostic]], ...] = (
    *(
        _stages,
        _engine,
        _quantize,
        _groups,
        _trackers,
        _paths,
        _limits,
        _length,
        _batch,
        _no_effect,
        _features,
    ),
)
