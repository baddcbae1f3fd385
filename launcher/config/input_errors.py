"""Errors of what was typed: unknown names, values that the schema rejects, and wrong arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

from gearshift.launcher.base.diagnostics import (
    OFF,
    ON,
    Diagnostic,
    SettingsError,
    listed,
    nearest_match,
    plain,
    shown,
)
from gearshift.launcher.config.command_line import BY_FLAG
from gearshift.launcher.config.errors import about, allowed, display_name
from gearshift.launcher.config.provenance import BUILT_IN_LAYER, Setting, Values
from gearshift.launcher.config.schema import SettingInfo, sections, setting_infos

# Settings.


def unknown_key(family: str, layer: Values, key: str) -> Diagnostic:
    """A key of `layer` that does not exist, or a section that is given a value."""
    infos = setting_infos(family)
    known = sections(family)
    section = key.rpartition(".")[0]
    suggestion = (
        section
        if section in infos and infos[section].type == "mapping"
        else nearest_key(key, infos)
    )
    message = f"unknown setting '{key}'"
    section = section if section in known else ""
    if key in known:
        message = f"'{key}' is a section, not a setting: it cannot be {shown(layer[key].value)}"
        section = key
        suggestion = None
    here = [
        name.rpartition(".")[2] for name in (*infos, *known) if name.rpartition(".")[0] == section
    ]
    return about(layer, key, message, allowed=listed(here, "explain"), did_you_mean=suggestion)


def nearest_key(name: str, keys: Collection[str]) -> str | None:
    """The setting among `keys` that was probably meant: by its last part, or by all of its name.

    A short option may stand for its setting: --set batch_size=4.
    """
    section, _, last = name.rpartition(".")
    anywhere = {key.rpartition(".")[2]: key for key in keys}
    anywhere |= {
        flag[2:]: str(option.key) for flag, option in BY_FLAG.items() if option.key in keys
    }
    here = {part: f"{section}.{part}" for part in anywhere if f"{section}.{part}" in keys}
    for table in (here, anywhere):
        if part := nearest_match(last, table):
            return table[part]
    return None if section else nearest_match(name, keys)


def rejected(
    info: SettingInfo, setting: Setting, failure: Mapping[str, Any], below: Setting
) -> Diagnostic:
    """The error of a value, or of a part of it, from loc, type and ctx of pydantic's `failure`.

    `below` is the value that it overrides.
    """
    kind = failure["type"]
    path = info.key
    value = setting.value
    more: dict[str, Any] = {}
    parts = list(failure["loc"][path.count(".") + 1 :]) if "mapping" in info.type else []
    has_name = bool(parts) and (parts[-1] == "[key]" or kind in ("extra_forbidden", "missing"))
    name = parts.pop() if has_name else ""
    name = parts[-1] if name == "[key]" else name
    if any(isinstance(part, int) for part in parts):  # an item of a list
        path += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    value = failure.get("input") if parts else value
    reason = str(failure.get("ctx", {}).get("error") or re.sub("^.*(?=should)", "", failure["msg"]))
    if kind == "string_pattern_mismatch" or (kind == "value_error" and not parts):
        reason = "is not understood"
    message = f"{display_name(path)} {shown(value)} {reason}"
    if kind == "missing":
        message = f"{path} has no {name}"
    elif has_name:
        message = f"unknown name '{name}' in {path}"
        more["did_you_mean"] = nearest_match(str(name), re.findall(r"\w+", str(info.allowed)))
    elif not parts:
        options = ("true", "false") if info.type == "true or false" else info.allowed
        bound = info.bounds.get({"greater_than_equal": "ge", "less_than_equal": "le"}.get(kind, ""))
        word = str(value).lower()
        suggestion = None
        if info.nullable and word == "none":
            suggestion = "null"
        elif isinstance(options, tuple):
            if isinstance(value, str) and isinstance(info.allowed, tuple):
                message = f"unknown {display_name(path)} {shown(value)}"
            same = next((words for words in (ON, OFF) if word in words), (word,))
            suggestion = next((o for o in options if o in same), None) or nearest_match(
                word, options
            )
        elif bound is not None and not isinstance(value, list):
            suggestion = plain(bound)
        more["did_you_mean"] = more["new"] = suggestion
        if below.origin.layer != BUILT_IN_LAYER:
            more["overrides"] = (below.value, below.origin.where)
    return about({path: setting}, path, message, value=value, allowed=allowed(info), **more)


# Calls of Python.

_OF_KEYS = {"model.family": "model", "model.size": "model", "mode": "mode", "engine.name": "engine"}
_OF_KEYS |= {"engine.nproc": "nproc", "--input": "inputs"}
"""The arguments that have another name than the setting or the option."""
EVALUATE = "Run.evaluate"
"""The call with an argument for the data."""


def as_arguments(diagnostics: Iterable[Diagnostic], call: str) -> list[Diagnostic]:
    """The diagnostics of a Python call, such as `train`: what was typed is one of its arguments."""
    names = _OF_KEYS | ({"data.path": "data"} if call == EVALUATE else {})
    typed = []
    for one in diagnostics:
        if (one.where or "").startswith(("--", "command line", "the command line")):
            key = one.key or ""
            option = key[2:].replace("-", "_") if key.startswith("--") else None
            name = names.get(key, option) or "settings"
            value = one.value
            given = repr({key: value} if name == "settings" else value)
            one = replace(one, where=f"{call}({name}={given})" if key else f"{call}()")
        typed.append(one)
    return typed


def text_of(value: Any) -> str:
    """A value as the text after `--set KEY=`; a number of numpy or a tensor, or several, as Python's."""
    if isinstance(value, str | PathLike):
        return str(value)
    return json.dumps(value, default=lambda v: str(v) if isinstance(v, PathLike) else v.tolist())


def check_types(
    given: Mapping[str, tuple[Any, tuple[type, ...]]], call: str, none: bool = True
) -> None:
    """Raise SettingsError for arguments of another type than these; `none`: or None."""
    wrong = []
    for name, (value, kind) in given.items():
        if not isinstance(value, kind) and not (none and value is None):
            kinds = " or ".join(each.__name__ for each in kind)
            message = f"{name} {value!r} is of type {type(value).__name__}, not {kinds}"
            wrong.append(Diagnostic(message, value=value, where=f"{call}({name}={value!r})"))
    if wrong:
        raise SettingsError(wrong)
