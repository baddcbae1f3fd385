"""Checks of resolved settings before anything starts: errors and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, nearest_match, plain, shown
from launcher.config import errors, feature_checks, provenance, selection
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import MODE_LAYER, PROFILE_LAYER, USER_LAYERS, Resolved, Setting
from launcher.config.schema import setting_infos
from training import duration

if TYPE_CHECKING:
    pass

Values = Mapping[str, Setting]


def check_settings(values: Values) -> list[Diagnostic]:
    """The errors and warnings that need no data."""
    return [found for check in CHECKS for found in check(values)]


def check_train_plan(
    resolved: Resolved, total_steps: int, steps_per_epoch: int
) -> list[Diagnostic]:
    """The errors and warnings that need the number of samples."""
    values = resolved.values
    found = [*_too_rare(values, total_steps, steps_per_epoch)]
    warmup = values["schedule.warmup"]
    steps = duration.steps(warmup.value, steps_per_epoch, total_steps)
    if steps >= total_steps and values["schedule.warmup_cap"].value is None:
        found.append(_long_warmup(warmup, steps, total_steps))
    return found


def why_ineffective(values: Values, key: str) -> str | None:
    """Why a setting has no effect with the others; None if it has one."""
    leaf = setting_infos(values["model.family"].value)[key]
    for other, wanted in leaf.only_if.items():
        if values[other].value not in wanted:
            needed = " or ".join(map(plain, wanted))
            return f"has no effect: {other} is {plain(values[other].value)}, not {needed}"
    for other, unwanted in leaf.unless.items():
        if values[other].value in unwanted:
            return f"has no effect: {other} is {plain(values[other].value)}"
    return None


def _about(
    values: Values, key: str, why: str, fix: str | None = None, severity: Any = "error"
) -> Diagnostic:
    value = values[key]
    return Diagnostic(
        f"{key} {shown(value.value)} {why}",
        key=key,
        value=value.value,
        where=errors.where(key, value.origin),
        fix=fix,
        severity=severity,
    )


def _ds_config(values: Values) -> Iterator[Diagnostic]:
    path, engine = values["engine.ds_config"].value, values["engine.name"].value
    if path is None:
        return
    zero = [entry.name for entry in ENGINES.values() if entry.ds_config]
    if engine not in zero:
        yield Diagnostic(
            f"engine.ds_config needs a DeepSpeed engine, and the engine is {engine}",
            key="engine.ds_config",
            value=path,
            where=errors.where("engine.ds_config", values["engine.ds_config"].origin),
            allowed=f"with the engines {', '.join(zero)}",
            fix="--engine zero2",
        )


def _paths(values: Values) -> Iterator[Diagnostic]:
    for key in ("data.path", "model.pretrained", "engine.ds_config"):
        path = values[key].value if key in values else None
        if path is None or path.startswith("embedded:") or (path and Path(path).exists()):
            continue
        if key == "data.path" and feature_checks.will_download(values, path):
            continue
        folder = Path(path).parent
        there = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        near = nearest_match(Path(path).name, there)
        near = near and str(Path(path).parent / near)
        yield Diagnostic(
            f"{key} '{path}' does not exist ({Path(path).expanduser().absolute()})",
            key=key,
            value=path,
            where=errors.where(key, values[key].origin),
            did_you_mean=near,
            fix=near and errors.fix_line(key, values[key].origin, near),
        )


def _limits(values: Values) -> Iterator[Diagnostic]:
    for name in ("ram", "gpu", "swap", "disk"):
        low, high = values[f"limits.{name}"], values[f"limits.critical.{name}"]
        if low.value > high.value:
            why = f"is above limits.critical.{name} {plain(high.value)}"
            yield _about(values, f"limits.{name}", f"{why} from {high.origin.where}")


def _warmup(values: Values) -> Iterator[Diagnostic]:
    warmup, most = values["schedule.warmup"], values["train.max_steps"].value
    if values["schedule.warmup_cap"].value is not None:
        return  # the warm-up is cut, with a note
    if isinstance(warmup.value, int) and most is not None and warmup.value >= most:
        yield _long_warmup(warmup, warmup.value, most)


def _long_warmup(warmup: Setting, steps: int, total: int) -> Diagnostic:
    key = "schedule.warmup"
    return Diagnostic(
        f"{key} {shown(warmup.value)} is {steps} steps, and the run has {total}: "
        "the learning rate would never reach its peak",
        key=key,
        value=warmup.value,
        where=errors.where(key, warmup.origin),
        allowed=f"less than {total} steps",
        did_you_mean="10%",
        fix=errors.fix_line(key, warmup.origin, "10%"),
        severity="error" if provenance.is_set_by_user(warmup) else "warning",
    )


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
        yield _about(
            values,
            "save.last",
            "means that no checkpoint is ever saved",
            "save.last: true",
            "warning",
        )


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
            yield _about(values, key, why, fix, "warning")


def _batch(values: Values) -> Iterator[Diagnostic]:
    """Warn if micro-batch or accumulation change the global batch."""
    if values[GLOBAL].origin.layer in USER_LAYERS:
        return
    typed = [key for key in (MICRO, ACCUMULATION) if values[key].origin.layer in USER_LAYERS]
    new = (values[MICRO].value or 1) * (values[ACCUMULATION].value or 1)
    old = (provenance.shipped_value(values[MICRO]) or 1) * (
        provenance.shipped_value(values[ACCUMULATION]) or 1
    )
    if typed and new != old:
        yield Diagnostic(
            f"the global batch is {new} instead of {old}, by {' and '.join(typed)}",
            key=GLOBAL,
            value=new,
            where="; ".join(errors.where(key, values[key].origin) for key in typed),
            fix=f"--set {GLOBAL}={old}  to keep it; or ={new} to confirm",
            severity="warning",
        )


def _mode_keeps_batch(values: Values) -> Iterator[Diagnostic]:
    """A mode that promises the same global batch, with numbers that do not divide."""
    promise = values["promise"].value.get("global_batch")
    if promise != {"at_least": 1, "at_most": 1}:
        return
    trio = (GLOBAL, MICRO, ACCUMULATION)
    if any(values[key].origin.layer in (PROFILE_LAYER, *USER_LAYERS) for key in trio):
        return
    old = (provenance.mode_default_value(values[MICRO]) or 1) * (
        provenance.mode_default_value(values[ACCUMULATION]) or 1
    )
    new = (provenance.shipped_value(values[MICRO]) or 1) * (
        provenance.shipped_value(values[ACCUMULATION]) or 1
    )
    if new != old:
        yield _about(
            values,
            "mode",
            f"promises a global batch of {old}, and its numbers give {new}",
            f"--set {GLOBAL}={old}",
        )


def _mode_changes_nothing(values: Values) -> Iterator[Diagnostic]:
    if values["mode"].value == "default":
        return
    for key, value in values.items():
        layers = provenance.all_values(value)
        for (new, origin), (old, _) in pairwise(layers):
            if origin.layer == MODE_LAYER and new != old and key != "promise":
                return
    yield _about(values, "mode", "changes nothing", severity="warning")


def _no_effect(values: Values) -> Iterator[Diagnostic]:
    severity = "error" if values["unread_settings"].value == "error" else "warning"
    for key, value in values.items():
        if provenance.is_set_by_user(value) and (why := why_ineffective(values, key)):
            yield _about(values, key, why, "remove it", severity)


CHECKS: tuple[Callable[[Values], Iterator[Diagnostic]], ...] = (
    selection.check_stages,
    _ds_config,
    _paths,
    _limits,
    _warmup,
    _never,
    _batch,
    _mode_keeps_batch,
    _mode_changes_nothing,
    _no_effect,
    feature_checks.check_continual,
    feature_checks.check_download,
)
