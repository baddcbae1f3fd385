"""Diagnostics of single values: unknown settings, wrong types, values out of range."""

from __future__ import annotations

import math
import operator
import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import (
    OFF,
    ON,
    Diagnostic,
    SettingsError,
    fold,
    listed,
    nearest_match,
    plain,
    shown,
)
from launcher.config import other_tools, settings_file
from launcher.config.options import OPTIONS, flag_of, typed_line
from launcher.config.originals import fetched, is_section, original_of
from launcher.config.provenance import (
    BUILT_IN_LAYER,
    CLI_LAYER,
    FILES_LAYER,
    Entry,
    Origin,
    Resolved,
    Setting,
)
from launcher.config.schema import SettingInfo, sections, setting_infos
from launcher.config.settings_file import Unreadable, node_value
from models.base import DataError
from models.catalog import is_custom
from training.settings import SettingError

UNKNOWN = "unknown"
_OPTION = re.compile(r"""(--[a-z][a-z-]*) (?!-)((?:'[^']*'|"[^"]*"|[^\s'"\\])+)""")
_KEYS = {option.flag: option.key for option in OPTIONS if option.key}
_LIKE = 0.4
"""`rl` and `lr`, `lr` and `lr_scale` are alike; `rank` and `lr` are not."""
_LINE = re.compile(r":[0-9]+$")
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_WRONG_FORM = {"literal_error", "string_pattern_mismatch", "value_error", "not_known"}
_LISTS = {
    "mode": "list modes",
    "engine.name": "list engines",
    "model.family": "list models",
    "model.size": "list models",
}

_BESIDE = {"model.family": "or a task of your own: package.module:Class"}
"""Allowed in addition to the options of a table."""
_CALLED = {"engine.name": "engine", "model.family": "model", "model.size": "model size"}


def unknown_keys(family: str, entry: Entry) -> list[Diagnostic]:
    """A key that does not exist; for a section of an original, each key in it."""
    if not is_section(entry.key) or entry.node is None or not isinstance(entry.node.value, dict):
        return [_unknown_key(family, entry)]
    file = entry.origin.where.rpartition(":")[0]
    return [
        found
        for name, node in entry.node.value.items()
        for found in unknown_keys(
            family,
            replace(
                entry,
                key=f"{entry.key}.{name}",
                value=node_value(node),
                origin=replace(entry.origin, where=f"{file}:{node.line}"),
                order=(entry.order[0], node.line),
                text=node.text,
                node=node,
            ),
        )
    ]


def _unknown_key(family: str, entry: Entry) -> Diagnostic:
    """A key that does not exist, or a section that is given a value."""
    if entry.key in sections(family):
        return _no_section(family, entry)
    section = entry.key.rpartition(".")[0]
    section = section if section in sections(family) else ""
    here = [
        key
        for key in (*setting_infos(family), *sections(family))
        if key.rpartition(".")[0] == section
    ]
    names = sorted(key.rpartition(".")[2] for key in here)
    near, fix = _nearest_key(family, entry, here)
    if entry.key == "data.path" and is_custom(family):
        near, fix = (
            None,
            (
                f"in {family.partition(':')[2]}:  class Data(BaseModel): path: str | None = None  "
                "(samples reads self.data_settings.path)"
            ),
        )
    return Diagnostic(
        f"unknown setting '{entry.key}'",
        key=entry.key,
        value=entry.value,
        where=where(entry.key, entry.origin),
        allowed=listed(names, "explain"),
        did_you_mean=near,
        fix=fix,
        order=entry.order,
    )


def _nearest_key(family: str, entry: Entry, here: Sequence[str]) -> tuple[str | None, str | None]:
    """The key that was probably meant, and the line to type; `here`: the keys of its section."""
    infos = setting_infos(family)
    if (other := other_tools.setting_of(entry.key)) in infos:
        assert other is not None
        return other, _write(entry, other, entry.value)
    near = _nearest_whole(entry.key, here)
    original = original_of(entry.key, family)
    if original is not None and fold(near or "") != fold(entry.key):
        typed = plain(entry.value) if entry.value is None else entry.value
        if (removal := original.removal(typed)) is not None:
            return None, removal
        if original.here in infos:
            value = original.value(typed)
            line = partial(_write, entry, original.here)
            return original.here, fetched(value, line) if original.form == "hub" else line(value)
        if original.here == flag_of(original.here):
            return original.here, typed_line(original, typed)
    if fold(near or "") != fold(entry.key):  # `DROPOUT` is model.dropout, not nearly `report`
        named = next((key for key in infos if fold(key.split(".")[-1]) == fold(entry.key)), None)
        near = named or near or nearest_key(entry.key, infos)
    fits = near is not None and (near not in infos or _may_be(infos[near], entry.value))
    return near, _write(entry, near, entry.value) if near and fits else None


def _may_be(info: SettingInfo, value: Any) -> bool:
    """Whether a setting may have the value of another one; a line without this says nothing."""
    if "number" in info.type and isinstance(value, str):
        value = _as_number(info, value)
    if value is None or unseen_by_schema(info, value):
        return value is None and info.nullable
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return not is_number or all(
        getattr(operator, name)(value, bound) for name, bound in info.bounds.items()
    )


def nearest_key(name: str, keys: Collection[str]) -> str | None:
    """The setting among `keys` that was probably meant: by its last part, or by all of it."""
    by_last = {key.rpartition(".")[2]: key for key in keys}
    # A short option typed as a setting: --set batch_size=4.
    by_last |= {option.flag[2:]: key for option in OPTIONS if (key := option.key) in keys and key}
    last = nearest_match(name.rpartition(".")[2], by_last)
    return by_last[last] if last else _nearest_whole(name, keys)


def _nearest_whole(name: str, keys: Collection[str]) -> str | None:
    """The nearest of `keys`, if its last part is like that of `name`: a shared section is not."""
    from difflib import SequenceMatcher  # slow to import, and only needed for errors

    near = nearest_match(name, keys)
    typed, meant = (fold(key.rpartition(".")[2]) for key in (name, near or ""))
    is_like = "." not in name or SequenceMatcher(None, typed, meant).ratio() > _LIKE
    return near if is_like else None


def set_twice(entry: Entry, first: Entry) -> Diagnostic:
    """A setting that one source sets twice, so that neither value is the later."""
    return Diagnostic(
        f"{entry.key} is set twice, to {_as_typed(first)} and to {_as_typed(entry)}",
        key=entry.key,
        value=entry.value,
        where=f"{first.origin.where}, and {entry.origin.where}",
        fix="remove one of them",
        order=entry.order,
    )


def bad_value(info: SettingInfo, entry: Entry, kind: str, below: Setting) -> Diagnostic:
    """A value that the schema rejects; `kind` is pydantic's error type."""
    near = _nearest(info, entry, kind)
    fix = None if near is None else _write(entry, entry.key, near)
    if entry.key == "model.family" and near is None and isinstance(entry.value, str):
        fix = other_tools.model_line(entry.value)
        near = fix and other_tools.meant(fix)
        if fix is None and entry.value.startswith((".", "/", "~")):
            return _no_path(entry)
    name, reason = display_name(entry.key), _reason(info, entry.value, kind)
    is_unknown = reason == UNKNOWN
    return Diagnostic(
        f"unknown {name} {_as_typed(entry)}"
        if is_unknown
        else f"{name} {_as_typed(entry)} {reason}",
        key=entry.key,
        value=entry.value,
        where=where(entry.key, entry.origin),
        overrides=overrides(below),
        allowed=allowed(info),
        did_you_mean=None if near is None else plain(near),
        fix=fix,
        order=entry.order,
    )


def _no_path(entry: Entry) -> Diagnostic:
    """A path as the name of a model that does not exist."""
    near = nearest_file(entry.value)
    return Diagnostic(
        f"model {entry.value!r} does not exist ({Path(entry.value).expanduser().absolute()})",
        key=entry.key,
        value=entry.value,
        where=where(entry.key, entry.origin),
        allowed="a folder of a model of transformers, a script with a custom task, or a run",
        did_you_mean=near,
        fix=near and other_tools.path_line(Path(near).expanduser()),
        order=entry.order,
    )


def overrides(below: Setting) -> tuple[Any, str] | None:
    """The overridden value for a message, unless it is built in."""
    if below.origin.layer == BUILT_IN_LAYER:
        return None
    return below.value, below.origin.where


def display_name(key: str) -> str:
    """The name of a setting in messages."""
    return _CALLED.get(key, key)


def allowed(info: SettingInfo) -> str:
    """The allowed values of a setting, in one line."""
    if isinstance(info.allowed, tuple):
        text = listed(info.allowed, _LISTS.get(info.key, f"explain {info.key}"))
        text += f"; {_BESIDE[info.key]}" if info.key in _BESIDE else ""
    elif info.allowed:
        text = info.allowed
    else:
        text = f"a {info.type}" if info.type != "true or false" else info.type
        if info.range:
            text += f", {info.range}"
    # The default is null anyway, so the user has no reason to type it.
    return f"{text}, or null" if info.nullable and info.default is not None else text


def unseen_by_schema(info: SettingInfo, value: Any) -> str | None:
    """The error type of what the types accept: a name in no table, a number that is not finite."""
    if isinstance(value, str) and isinstance(info.allowed, tuple) and value not in info.allowed:
        return "not_known"
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
        return "finite_number"
    return None


def _no_section(family: str, entry: Entry) -> Diagnostic:
    keys = [key for key in setting_infos(family) if key.startswith(f"{entry.key}.")]
    name = next((key for key in ("name", "size", "path") if f"{entry.key}.{key}" in keys), None)
    write = _write(entry, f"{entry.key}.{name}", entry.value) if name else None
    return Diagnostic(
        f"'{entry.key}' is a section, not a setting: it cannot be {shown(entry.value)}",
        key=entry.key,
        value=entry.value,
        where=where(entry.key, entry.origin),
        allowed=listed([key.rpartition(".")[2] for key in keys], "explain"),
        fix=write,
        order=entry.order,
    )


def _as_typed(entry: Entry) -> str:
    return entry.text if entry.text and not isinstance(entry.value, str) else shown(entry.value)


def _reason(info: SettingInfo, value: Any, kind: str) -> str:
    if kind in _OUT_OF_RANGE or (info.type == "length" and type(value) is int):
        return "is out of range"
    if kind == "finite_number":
        return "is not a finite number"
    if kind in ("too_short", "too_long"):
        return "has the wrong length"
    if kind in _WRONG_FORM and isinstance(value, list):
        return "is not understood"
    if kind in _WRONG_FORM and isinstance(value, str):
        return UNKNOWN if isinstance(info.allowed, tuple) else "is not understood"
    if isinstance(value, str) and "number" in info.type:
        return f"is text, not a {info.type}"
    if info.type == "text" and value is not None:
        return "is not text"
    if info.type in ("one of", "length", "text", "mapping"):
        return "is not understood"
    return f"is not {'' if info.type == 'true or false' else 'a '}{info.type}"


def _nearest(info: SettingInfo, entry: Entry, kind: str) -> Any:
    value = entry.value
    if info.nullable and str(value).lower() == "none":
        return "null"
    if info.type == "true or false" or isinstance(value, bool):
        return _as_switch(info, value)
    if isinstance(info.allowed, tuple) and isinstance(value, str):
        near = _as_switch(info, value) or other_tools.value_of(info.key, value)
        return near or nearest_match(value, info.allowed)
    if kind in ("greater_than_equal", "less_than_equal") and not isinstance(value, list):
        return info.bounds.get("ge" if kind == "greater_than_equal" else "le")
    if "number" in info.type and isinstance(value, str):
        return _as_number(info, value)
    if info.type == "whole number" and isinstance(value, float) and value.is_integer():
        return int(value)
    is_plain = not isinstance(value, str | list | dict) and value is not None
    return f'"{plain(value)}"' if info.type == "text" and is_plain else None


def _as_switch(info: SettingInfo, value: Any) -> str | None:
    """The switch that was meant by one of the many words for on and off."""
    word = str(value).lower()
    for words, switched in ((ON, ("true", "on")), (OFF, ("false", "off"))):
        if word in words:
            allowed = ("true", "false") if info.type == "true or false" else info.allowed or ()
            return next((option for option in switched if option in allowed), None)
    return None


def _as_number(info: SettingInfo, text: str) -> int | float | None:
    """The number that was meant by a quoted text, or by YAML 1.1."""
    try:
        value = settings_file.parse_yaml_scalar(re.sub(r"(?<=[0-9])_(?=[0-9])", "", text.strip()))
    except ValueError:
        return None
    kinds = (int,) if info.type == "whole number" else (int, float)
    return value if isinstance(value, kinds) and not isinstance(value, bool) else None


def about(values: Mapping[str, Setting], key: str, message: str, **parts: Any) -> Diagnostic:
    """A diagnostic of the setting `key`; `parts` are fields beside or instead of its own."""
    value = values[key]
    own: dict[str, Any] = {"key": key, "value": value.value, "where": where(key, value.origin)}
    return Diagnostic(message, **(own | parts))


def about_value(values: Mapping[str, Setting], key: str, why: str, **parts: Any) -> Diagnostic:
    """As `about`, with the message `KEY VALUE why`."""
    return about(values, key, f"{key} {shown(values[key].value)} {why}", **parts)


def about_setting(error: SettingError, resolved: Resolved) -> Diagnostic:
    """What `error` says of a setting of `resolved`."""
    message = f"{error.key} {shown(error.value)} {error.problem}"
    parts = {"value": error.value, "allowed": error.allowed, "fix": error.fix}
    return about(resolved.values, error.key, message, **parts)


def about_data(error: DataError, **parts: Any) -> SettingsError:
    """What `error` says of data; `parts` are fields beside or instead of its own."""
    own: dict[str, Any] = {
        "where": error.where or None,
        "allowed": error.allowed or None,
        "did_you_mean": error.did_you_mean or None,
        "fix": error.fix or None,
    }
    return SettingsError.of(error.message, **(own | parts))


def nearest_file(path: str | Path) -> str | None:
    """The file or folder beside `path`, which does not exist, with the nearest name. Reads disk."""
    folder, name = Path(path).expanduser().parent, Path(path).name
    names = os.listdir(folder) if folder.is_dir() else []
    near = nearest_match(name, [other for other in names if other != name])  # a link to nothing
    return near and str(Path(path).parent / near)


def where(key: str, origin: Origin) -> str:
    """The origin of a value in messages: `mine.yaml:12 optim.lr`, `--lr 1e-3`."""
    is_line = origin.layer != CLI_LAYER and _LINE.search(origin.where)
    return f"{origin.where} {key}" if is_line else origin.where


def fix_line(key: str, origin: Origin, value: Any) -> str:
    """The line to type instead of a value."""
    option: str | None = "--set"  # no file of ours and of a resumed run is edited
    if origin.layer in (CLI_LAYER, FILES_LAYER):
        option = origin.where.split()[0] if origin.layer == CLI_LAYER else None
    return _line(option, key, value)


def as_typed(fix: str, values: Mapping[str, Setting]) -> str:
    """`fix` with the options that the command line has: --set beside --seq-len is an error."""

    def line(match: re.Match[str]) -> str:
        flag, value = match[1], shlex.split(match[2])[0]
        key, _, text = value.partition("=") if flag == "--set" else (_KEYS.get(flag, ""), "", value)
        origin = values[key].origin if key in values else None
        typed = origin.where.split()[0] if origin and origin.layer == CLI_LAYER else flag
        if typed == flag or (typed != "--set" and _KEYS.get(typed) != key):
            return match[0]
        return _line(typed, key, text)

    return _OPTION.sub(line, fix)


def custom_task_errors(error: SettingsError, origin: Origin) -> list[Diagnostic]:
    """The errors of a custom task, with the place where the user named it."""
    named_at = where("model.family", origin)
    return [
        replace(
            found,
            where=f"{named_at}; {found.where}" if found.where else named_at,
            fix=found.fix
            or (found.did_you_mean and fix_line("model.family", origin, found.did_you_mean)),
        )
        for found in error.diagnostics
    ]


def no_assignment(text: str, order: tuple[int, int]) -> Diagnostic:
    """A --set without a value."""
    return Diagnostic(
        f"--set {text} has no value",
        where=f"--set {text}",
        allowed="--set KEY=VALUE; for example  --set optim.lr=1e-3",
        order=order,
    )


def unreadable(text: str, error: Unreadable, order: tuple[int, int]) -> Diagnostic:
    """A value on the command line that is invalid YAML."""
    return Diagnostic(f"{text} cannot be read: {error.problem}", where=text, order=order)


def _write(entry: Entry, key: str, value: Any) -> str:
    """The line to type instead of the entry, for the same or another key."""
    if entry.option is None and key.rpartition(".")[0] != entry.key.rpartition(".")[0]:
        return f"{key}: {plain(value)}"
    return _line(entry.option, key, value)


def _line(option: str | None, key: str, value: Any) -> str:
    if option is None:
        return f"{key.rpartition('.')[2]}: {plain(value)}"
    if option == "--set":
        is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        text = ",".join(value) if is_texts and value else plain(value)
        return f"--set {shlex.quote(f'{key}={text}')}"
    space = "" if option.endswith(":") else " "  # --model FAMILY:
    return f"{option}{space}{plain(value)}"
