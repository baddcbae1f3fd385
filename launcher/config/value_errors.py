"""Diagnostics of single values: unknown settings, and what the schema rejects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from launcher.base.diagnostics import OFF, ON, Diagnostic, fold, listed, nearest_match, plain, shown
from launcher.config.argument_errors import meant, model_line
from launcher.config.errors import about_entry, allowed, display_name, line, where
from launcher.config.options import OPTIONS
from launcher.config.provenance import BUILT_IN_LAYER, Setting, TypedEntry
from launcher.config.schema import SettingInfo, sections, setting_infos
from launcher.config.settings_file import parse_yaml_scalar

_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_REASONS = {
    **dict.fromkeys(_OUT_OF_RANGE, "is out of range"),
    "finite_number": "is not a finite number",
    **dict.fromkeys(("too_short", "too_long"), "has the wrong length"),
}
"""What is wrong with a value, by pydantic's type of error."""


def unknown_key(family: str, entry: TypedEntry) -> Diagnostic:
    """A key that does not exist, or a section that is given a value."""
    infos, known = setting_infos(family), sections(family)
    above = entry.key.rpartition(".")[0]
    message, suggestion = f"unknown setting '{entry.key}'", None
    section = above if above in known else ""
    if entry.key in known:
        message = f"'{entry.key}' is a section, not a setting: it cannot be {shown(entry.value)}"
        section = entry.key
    elif above in infos and infos[above].type == "mapping":
        suggestion = above
    else:
        suggestion = nearest_key(entry.key, infos)
    here = [key.rpartition(".")[2] for key in (*infos, *known) if key.rpartition(".")[0] == section]
    return about_entry(entry, message, allowed=listed(here, "explain"), did_you_mean=suggestion)


def nearest_key(name: str, keys: Collection[str]) -> str | None:
    """The setting among `keys` that was probably meant: by all of its name, or by the last part.

    A short option may stand for its setting: --set batch_size=4.
    """
    section, _, last = name.rpartition(".")
    here = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == section}
    anywhere = {key.rpartition(".")[2]: key for key in keys}
    anywhere |= {option.flag[2:]: option.key for option in OPTIONS if option.key and option.key in keys}
    for table in (here, anywhere):
        if same := [key for part, key in table.items() if fold(part) == fold(last)]:
            return same[0]
    for table in (here, anywhere):
        if part := nearest_match(last, table):
            return table[part]
    return None if section else nearest_match(name, keys)


def rejected(
    info: SettingInfo, entry: TypedEntry, detail: Mapping[str, Any], below: Setting | None
) -> Diagnostic:
    """The error of a value, or of a part of it, that the schema rejects with `detail` of pydantic.

    `below` is the value that it overrides.
    """
    parts, kind = [*detail["loc"]][entry.key.count(".") + 1 :], detail["type"]
    if not info.items or not parts:
        return _bad_value(info, entry, kind, below)
    last, is_name = str(parts[-1]), parts[-1] == "[key]"
    if is_name or kind in ("extra_forbidden", "missing"):
        parts.pop()
    path = entry.key + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    item = replace(entry, key=path, value=detail["input"], option=None, text=None)
    if is_name or kind == "extra_forbidden":
        name, options = (str(parts[-1]), info.names) if is_name else (last, tuple(info.items))
        near = nearest_match(name, options)
        message = f"unknown name '{name}' in {path}"
        diagnostic = about_entry(item, message, allowed=", ".join(options), did_you_mean=near)
    else:
        reason = detail.get("ctx", {}).get("error") or _REASONS.get(kind, "is not understood")
        problem = f"has no {last}" if kind == "missing" else f"{shown(item.value)} {reason}"
        diagnostic = about_entry(item, f"{path} {problem}", allowed=allowed(info.items.get(last, info)))
    is_list = any(isinstance(part, int) for part in parts)
    return diagnostic if is_list else replace(diagnostic, key=entry.key, where=where(entry.key, entry.origin))


def _bad_value(info: SettingInfo, entry: TypedEntry, kind: str, below: Setting | None) -> Diagnostic:
    value, suggestion = entry.value, _nearest(info, entry.value, kind)
    fix = None if suggestion is None else line(entry.option, entry.key, suggestion)
    if entry.key == "model.family" and suggestion is None and isinstance(value, str):
        fix = model_line(value)
        suggestion = fix and meant(fix)
    is_text, is_length = isinstance(value, str), info.type == "length" and type(value) is int
    reason = "is out of range" if is_length else _REASONS.get(kind, f"is not a value of type {info.type}")
    name, typed = display_name(entry.key), shown(value)
    if entry.text and not is_text:
        typed = entry.text
    message = (
        f"unknown {name} {typed}"
        if is_text and isinstance(info.allowed, tuple)
        else f"{name} {typed} {reason}"
    )
    is_shown = below is not None and below.origin.layer != BUILT_IN_LAYER
    return about_entry(
        entry,
        message,
        overrides=(below.value, below.origin.where) if below is not None and is_shown else None,
        allowed=allowed(info),
        did_you_mean=None if suggestion is None else plain(suggestion),
        fix=fix,
    )


def _nearest(info: SettingInfo, value: Any, kind: str) -> Any:
    """The value that was probably meant; None: it is not known."""
    word = str(value).lower()
    names = ("true", "false") if info.type == "true or false" else info.allowed
    if info.nullable and word == "none":
        return "null"
    if isinstance(names, tuple):
        for words, switched in ((ON, ("true", "on")), (OFF, ("false", "off"))):
            if word in words and (option := next((s for s in switched if s in names), None)):
                return option
        return nearest_match(value, names) if isinstance(value, str) else None
    if kind in ("greater_than_equal", "less_than_equal") and not isinstance(value, list):
        return info.bounds.get("ge" if kind == "greater_than_equal" else "le")
    if "number" in info.type and isinstance(value, str):  # quoted, or as YAML 1.1 has it
        try:
            value = parse_yaml_scalar(value.strip().replace("_", ""))
        except ValueError:
            return None
        return value if type(value) in ((int,) if info.type == "whole number" else (int, float)) else None
    if info.type == "whole number" and isinstance(value, float) and value.is_integer():
        return int(value)
    is_plain = info.type == "text" and value is not None and not isinstance(value, str | list | dict)
    return f'"{plain(value)}"' if is_plain else None
