"""Diagnostics of settings: where a value is set, and the line to type instead of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, listed, plain, shown
from gearshift.launcher.config.provenance import CLI_LAYER, Origin, Resolved, Values, with_another
from gearshift.launcher.config.schema import DATA_PATH, SettingInfo
from gearshift.models.base import DataError
from gearshift.models.catalog import FAMILIES
from gearshift.training.settings import SettingError

_LINE = re.compile(r":[0-9]+$")
_CALLED = {"engine.name": "engine", "model.family": "model", "model.size": "model size"}


def display_name(key: str) -> str:
    """The name of a setting in messages."""
    return _CALLED.get(key, key)


def allowed(info: SettingInfo) -> str:
    """The allowed values of a setting, in one line."""
    text = f"a {info.type}"
    if info.type == "true or false":
        text = info.type
    if isinstance(info.allowed, tuple):
        text = listed(info.allowed, f"explain {info.key}")
        if info.key == "model.family":
            text += "; a task of your own: package.module:Class; a Hugging Face model: its folder, "
            text += "OWNER/NAME or hf:OWNER/NAME@REVISION; or the folder of a run"
    elif info.allowed:
        text = info.allowed
    elif info.range:
        text = f"{text}, {info.range}"
    # The default is null anyway, so the user has no reason to type it.
    return f"{text}, or null" if info.nullable and info.default is not None else text


def about(
    values: Values,
    key: str,
    message: str,
    /,
    *,
    new: Any = None,
    is_removed: bool = False,
    fix: str | None = None,
    **fields: Any,
) -> Diagnostic:
    """A diagnostic of the setting `key`; `fields` are beside or instead of its own.

    `new`: a value that corrects it, for the line to type unless there is a `fix`; `is_removed`:
    the setting is better left out.
    """
    origin = values[key].origin
    replaces: tuple[str, ...] = ()
    if new is not None and fix is None:
        fix = fix_line(key, origin, new)
    if is_removed and origin.layer == CLI_LAYER:
        fix = ""
        replaces = (key,)
    diagnostic = Diagnostic(
        message,
        key,
        values[key].value,
        where(key, origin),
        fix=fix,
        replaces=replaces,
        order=origin.order,
    )
    return replace(diagnostic, **fields)


def about_value(values: Values, key: str, problem: str, **fields: Any) -> Diagnostic:
    """As `about`, with the message `KEY VALUE problem`."""
    return about(values, key, f"{key} {shown(values[key].value)} {problem}", **fields)


def about_setting(error: SettingError, resolved: Resolved) -> Diagnostic:
    """What `error` says of a setting of `resolved`."""
    return about(
        resolved.values,
        error.key,
        f"{error.key} {shown(error.value)} {error.problem}",
        value=error.value,
        allowed=error.allowed,
        did_you_mean=error.did_you_mean,
        fix=error.fix,
        hint=error.hint,
    )


def about_data(error: DataError, **fields: Any) -> SettingsError:
    """What `error` says of data; `fields` are beside or instead of its own."""
    diagnostic = Diagnostic(
        error.message,
        where=error.where or None,
        allowed=error.allowed or None,
        did_you_mean=error.did_you_mean or None,
        fix=error.fix or None,
        hint=error.hint or None,
    )
    return SettingsError([replace(diagnostic, **fields)])


def where(key: str, origin: Origin) -> str:
    """The origin of a value in messages: `mine.yaml:12 optim.lr`, `--lr 1e-3`."""
    is_line = origin.layer != CLI_LAYER and _LINE.search(origin.where)
    return f"{origin.where} {key}" if is_line else origin.where


def fix_line(key: str, origin: Origin, value: Any) -> str:
    """The option to type for another value: that of the command line, or one that overrides."""
    text = plain(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        text = ",".join(value)
    if key == DATA_PATH and isinstance(value, list):
        return " ".join(f"--data {shlex.quote(text)}" for text in value)
    option = "--set"  # what is typed overrides files and a resumed run
    if origin.layer == CLI_LAYER and origin.where.startswith("--"):
        option = origin.where.split()[0]
    if option == "--set":
        return f"--set {shlex.quote(f'{key}={text}')}"
    if option == "--model":  # FAMILY:SIZE
        family, _, size = origin.where.split()[1].rpartition(":")
        if key == "model.size":
            if not family:  # of the folder of a run
                return f"--set {key}={text}"
            text = f"{family}:{value}"
        elif family and value in FAMILIES:
            text = f"{value}:{size}"
    return f"{option} {shlex.quote(text)}"


def of_value(values: Values, key: str, error: SettingsError, name: object) -> Iterator[Diagnostic]:
    """What `error` says of `name`, the value of a setting or one of several, with its place."""
    setting = values[key]
    for diagnostic in error.diagnostics:
        if diagnostic.key in (None, key):
            places = [where(key, setting.origin), *filter(None, [diagnostic.where])]
            like = diagnostic.did_you_mean
            diagnostic = replace(diagnostic, key=key, where="; ".join(places))
            if like:
                fix = fix_line(key, setting.origin, with_another(setting.value, name, like))
                diagnostic = replace(diagnostic, fix=fix, replaces=())
        yield replace(diagnostic, order=setting.origin.order)
