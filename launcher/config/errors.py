"""Diagnostics of settings: where a value is set, and the line to type instead of it."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, listed, plain, shown
from gearshift.launcher.config.provenance import CLI_LAYER, FILES_LAYER, Origin, Resolved, Values
from gearshift.launcher.config.schema import SettingInfo
from gearshift.models.base import DataError
from gearshift.training.settings import SettingError

_LINE = re.compile(r":[0-9]+$")
_CALLED = {"engine.name": "engine", "model.family": "model", "model.size": "model size"}


def display_name(key: str) -> str:
    """The name of a setting in messages."""
    return _CALLED.get(key, key)


def allowed(info: SettingInfo) -> str:
    """The allowed values of a setting, in one line."""
    text = "true or false" if info.type == "true or false" else f"a {info.type}"
    if isinstance(info.allowed, tuple):
        text = listed(info.allowed, f"explain {info.key}")
        text += (
            "; or a task of your own: package.module:Class" if info.key == "model.family" else ""
        )
    elif info.allowed or info.range:
        text = info.allowed or f"{text}, {info.range}"
    # The default is null anyway, so the user has no reason to type it.
    return f"{text}, or null" if info.nullable and info.default is not None else text


def about(
    values: Values, key: str, message: str, /, *, new: Any = None, **parts: Any
) -> Diagnostic:
    """A diagnostic of the setting `key`; `parts` are fields beside or instead of its own.

    `new`: a value that removes it, for the line to type.
    """
    value = values[key].value
    origin = values[key].origin
    fields = {"key": key, "value": value, "where": where(key, origin), "order": origin.order}
    fix = {} if new is None else {"fix": fix_line(key, origin, new)}
    return Diagnostic(message, **{**fields, **fix, **parts})


def about_value(values: Values, key: str, problem: str, **parts: Any) -> Diagnostic:
    """As `about`, with the message `KEY VALUE problem`."""
    return about(values, key, f"{key} {shown(values[key].value)} {problem}", **parts)


def about_setting(error: SettingError, resolved: Resolved) -> Diagnostic:
    """What `error` says of a setting of `resolved`."""
    parts = {name: getattr(error, name) for name in ("value", "allowed", "fix", "did_you_mean")}
    message = f"{error.key} {shown(error.value)} {error.problem}"
    return about(resolved.values, error.key, message, **parts)


def about_data(error: DataError, **parts: Any) -> SettingsError:
    """What `error` says of data; `parts` are fields beside or instead of its own."""
    names = ("where", "allowed", "did_you_mean", "fix")
    fields = {name: getattr(error, name) or None for name in names}
    return SettingsError.of(error.message, **(fields | parts))


def where(key: str, origin: Origin) -> str:
    """The origin of a value in messages: `mine.yaml:12 optim.lr`, `--lr 1e-3`."""
    is_line = origin.layer != CLI_LAYER and _LINE.search(origin.where)
    return f"{origin.where} {key}" if is_line else origin.where


def fix_line(key: str, origin: Origin, value: Any) -> str:
    """The line to type instead of a value of `origin`: of a file, or of the command line."""
    if origin.layer == FILES_LAYER:
        return f"{key.rpartition('.')[2]}: {plain(value)}"
    is_texts = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    text = ",".join(value) if is_texts else plain(value)
    # No file of ours and of a resumed run is edited.
    option = origin.where.split()[0] if origin.layer == CLI_LAYER else "--set"
    if option == "--set":
        return f"--set {shlex.quote(f'{key}={text}')}"
    if key == "model.size":  # --model FAMILY:SIZE
        text = f"{origin.where.split()[1].rpartition(':')[0]}:{value}"
    return f"{option} {text}"


def custom_task_errors(error: SettingsError, values: Values) -> list[Diagnostic]:
    """The errors of a custom task, with the place where the user named it in `values`."""
    key = "model.family"
    errors = []
    origin = values[key].origin
    for one in error.diagnostics:
        if one.key == key:
            fix = one.fix or (one.did_you_mean and fix_line(key, origin, one.did_you_mean))
            place = "; ".join(filter(None, (where(key, origin), one.where)))
            one = replace(one, where=place, fix=fix)
        errors.append(replace(one, order=origin.order))
    return errors
