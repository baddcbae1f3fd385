"""Checks of the resolved settings that need no data: errors and warnings before a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, nearest_match, plain, shown
from launcher.config import errors, paths, provenance
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import (
    MODE_LAYER,
    PROFILE_LAYER,
    STAGED_MODE,
    USER_LAYERS,
    Setting,
)
from launcher.config.schema import PRETRAINED, setting_infos, task_class
from launcher.config.selection import KEY, declared_stages, select_stages
from models.catalog import FAMILIES, Stage, is_custom
from training import duration

Values = Mapping[str, Setting]
_FEATURES = ("continual.enabled", "download.fetch", "download.files")
_OF_OPTIMIZER = [f"optim.{key}" for key in ("name", "betas", "eps", "momentum", "weight_decay")]


def check_settings(values: Values) -> list[Diagnostic]:
    """The errors and warnings that need no data."""
    return [diagnostic for check in CHECKS for diagnostic in check(values)]


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
    return is_custom(family) and hasattr(task_class(family), "optimizer")


def _own_optimizer(values: Values) -> Iterator[Diagnostic]:
    """The optimizer of a custom task needs parameters in their own shape, on every process."""
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
            fix=f"--engine {zero[0]}",
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
        if key == "data.path" and _will_download(values, path):
            continue
        suggestion = errors.nearest_file(path)
        fix = suggestion and errors.fix_line(key, values[key].origin, suggestion)
        if key == PRETRAINED and suggestion is None:
            from launcher.config.originals import fetched, hub_folder

            line = partial(errors.fix_line, key, values[key].origin)
            fix = fetched(path, line) if hub_folder(path) else None
        if key == PRETRAINED and values[key].origin.layer == provenance.RESUMED_LAYER:
            fix = f"--set {PRETRAINED}=DIR  if it has moved"
        yield errors.about_value(
            values,
            key,
            f"{_absent(Path(path).expanduser())} ({Path(path).expanduser().absolute()})",
            did_you_mean=suggestion,
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
            problem = f"is above limits.critical.{name} {plain(high.value)}"
            yield errors.about_value(
                values, f"limits.{name}", f"{problem} from {high.origin.where}"
            )


def _warmup(values: Values) -> Iterator[Diagnostic]:
    warmup, max_steps = values["schedule.warmup"], values["train.max_steps"].value
    if values["schedule.warmup_cap"].value is not None:
        return  # the warm-up is cut, with a note
    if isinstance(warmup.value, int) and max_steps is not None and warmup.value >= max_steps:
        yield long_warmup(values, warmup.value, max_steps)


def long_warmup(values: Values, steps: int, total: int) -> Diagnostic:
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
        problem = "is null, and so is train.max_steps: the run has no end"
        fix = errors.fix_line("train.epochs", values["train.epochs"].origin, 1)
        allowed = "one of both"
        yield errors.about_value(values, "train.epochs", problem, allowed=allowed, fix=fix)


def _never(values: Values) -> Iterator[Diagnostic]:
    max_steps = values["train.max_steps"].value
    if max_steps is not None:
        yield from too_rare(values, max_steps, None)
    if (
        values["save.every"].value is None
        and not values["save.keep_best"].value
        and not values["save.last"].value
        and provenance.is_set_by_user(values["save.last"])
    ):
        problem = "means that no checkpoint is ever saved"
        fix = errors.fix_line("save.last", values["save.last"].origin, True)
        yield errors.about_value(values, "save.last", problem, fix=fix, severity="warning")


def too_rare(values: Values, total: int, steps_per_epoch: int | None) -> Iterator[Diagnostic]:
    for key, what in (("eval.every", "evaluation"), ("save.every", "save")):
        every = values[key]
        if every.value is None or not provenance.is_set_by_user(every):
            continue
        if steps_per_epoch is None and not isinstance(every.value, int):
            continue
        steps = duration.steps(every.value, steps_per_epoch or 1, total)
        if steps > total:
            problem = f"is {steps} steps, and the run has {total}: no {what} falls inside it"
            fix = errors.fix_line(key, every.origin, max(1, total // 2))
            yield errors.about_value(values, key, problem, fix=fix, severity="warning")


def _batch(values: Values) -> Iterator[Diagnostic]:
    """Warn if micro-batch or accumulation change the global batch."""
    if values[GLOBAL].origin.layer in USER_LAYERS:
        return
    keys = [key for key in (MICRO, ACCUMULATION) if values[key].origin.layer in USER_LAYERS]
    new = (values[MICRO].value or 1) * (values[ACCUMULATION].value or 1)
    old = _batch_of(values, provenance.shipped_value)
    if keys and new != old:
        yield errors.about(
            values,
            GLOBAL,
            f"the global batch is {new} instead of {old}, by {' and '.join(keys)}",
            value=new,
            where="; ".join(errors.where(key, values[key].origin) for key in keys),
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
        problem = f"promises a global batch of {old}, and gives {new} by {' and '.join(lines)}"
        yield errors.about_value(values, "mode", problem, fix=f"--set {GLOBAL}={old}")


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
        if provenance.is_set_by_user(value) and (problem := why_ineffective(values, key)):
            fix = "remove it"
            if problem.endswith(f"{PRETRAINED} is null"):
                fix = f"--set {PRETRAINED}=FOLDER  of a local model; or  remove it"
            yield errors.about_value(values, key, problem, fix=fix, severity=severity)


def _will_download(values: Values, path: str) -> bool:
    if not values["download.fetch"].value:
        return False
    from launcher.config import feature_checks

    return feature_checks.will_download(values, path)


def _features(values: Values) -> Iterator[Diagnostic]:
    """The checks of continual learning and downloads, for the runs that use them."""
    if not any(values[key].value for key in _FEATURES):
        return
    from launcher.config import feature_checks

    yield from feature_checks.check_continual(values)
    yield from _continual_data(values)
    yield from feature_checks.check_download(values)


def _continual_data(values: Values) -> Iterator[Diagnostic]:
    """New data arrives in data.path, which the run must read."""
    if not values["continual.enabled"].value or "data.path" not in values:
        return
    if problem := why_ineffective(values, "data.path"):
        what = f"{problem}; continual learning trains on new files there"
        yield errors.about_value(values, "data.path", what)


def check_stages(values: Values) -> Iterator[Diagnostic]:
    """Errors of mode staged, of the names in `stages`, and of missing first weights."""
    family, is_staged = values["model.family"].value, values["mode"].value == STAGED_MODE
    names, known = values[KEY].value, declared_stages(family)
    if not known:
        invalid = [key for key, is_set in (("mode", is_staged), (KEY, bool(names))) if is_set]
        yield from (_no_stages(values, key) for key in invalid)
    elif names and not is_staged:
        mode = values["mode"].value
        message = f"stages {shown(names)} needs mode staged, and the mode is {mode}"
        yield _stages_error(values, message, fix="--mode staged")
    elif diagnostics := list(_unknown_stages(values, known)):
        yield from diagnostics
    elif len(names) == 1:
        yield from _missing_weights(values, select_stages(names, known)[0])


def _no_stages(values: Values, key: str) -> Diagnostic:
    staged = [name for name, entry in FAMILIES.items() if entry.stages]
    return errors.about_value(
        values,
        key,
        f"needs stages, and {values['model.family'].value} declares none",
        allowed=f"families that declare stages: {', '.join(staged)}",
        fix="--mode resource-efficient  to lower peak memory in one run",
    )


def _unknown_stages(values: Values, stages: Sequence[Stage]) -> Iterator[Diagnostic]:
    """Errors for unknown names; without any, for a wrong order."""
    names = values[KEY].value
    known = [stage.name for stage in stages]
    unknown = [name for name in names if name not in known]
    for name in unknown:
        suggestion = nearest_match(name, known)
        fix = suggestion and f"--stage {suggestion}"
        if suggestion and not values[KEY].origin.where.startswith("--stage "):
            corrected = [suggestion if stage_name == name else stage_name for stage_name in names]
            fix = errors.fix_line(KEY, values[KEY].origin, _typed(corrected))
        yield _stages_error(values, f"unknown stage '{name}'", known, suggestion, fix)
    ordered = [name for name in known if name in names]
    if not unknown and ordered != list(names):
        problem = "name one twice" if len(ordered) < len(names) else "are not in declared order"
        suggestion = _typed(ordered)
        fix = errors.fix_line(KEY, values[KEY].origin, suggestion)
        yield _stages_error(values, f"stages {shown(names)} {problem}", known, suggestion, fix)


def _missing_weights(values: Values, stage: Stage) -> Iterator[Diagnostic]:
    if stage.loads is None or values[stage.loads].value is not None:
        return
    earlier = " or ".join(stage.of)
    yield Diagnostic(
        f"stage {stage.name} starts from the weights of stage {earlier}, and no run is given",
        key=stage.loads,
        where=errors.where(KEY, values[KEY].origin),
        allowed=f"--from RUN, a run of stage {earlier}; or all stages, --mode staged",
        fix="--from RUN",
    )


def _typed(names: Sequence[str]) -> str:
    """The names as a list without blanks, at which a shell would split it."""
    return f"[{','.join(names)}]"


def _stages_error(
    values: Values,
    message: str,
    allowed: Sequence[str] = (),
    suggestion: str | None = None,
    fix: str | None = None,
) -> Diagnostic:
    listed = ", ".join(allowed) or None
    return errors.about(values, KEY, message, allowed=listed, did_you_mean=suggestion, fix=fix)


CHECKS: tuple[Callable[[Values], Iterator[Diagnostic]], ...] = (
    check_stages,
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
    _features,
)
