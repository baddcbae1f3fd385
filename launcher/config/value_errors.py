"""Diagnostics of single values: unknown settings, and what the schema rejects."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from launcher.base.diagnostics import OFF, ON, Diagnostic, fold, listed, nearest_match, plain, shown
from launcher.config.argument_errors import meant, model_line
from launcher.config.errors import about_entry, allowed, display_name, line, where
from launcher.config.options import OPTIONS
from launcher.config.provenance import BUILT_IN_LAYER, Setting, TypedEntry
from launcher.config.schema import SettingInfo, sections, setting_infos, settings_class, unseen_by_schema
from launcher.config.settings_file import parse_yaml_scalar
from training.settings import nested

_LIKE = 0.4
"""`rl` and `lr`, `lr` and `lr_scale` are similar; `rank` and `lr` are not."""
_REASONS = {
    **dict.fromkeys(
        ("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "is out of range"
    ),
    "finite_number": "is not a finite number",
    **dict.fromkeys(("too_short", "too_long"), "has the wrong length"),
}
"""What is wrong with a value, by pydantic's type of error."""


def unknown_key(family: str, entry: TypedEntry) -> Diagnostic:
    """A key that does not exist, or a section that is given a value."""
    infos, known, value = setting_infos(family), sections(family), plain(entry.value)
    above, _, name = entry.key.rpartition(".")
    message = f"unknown setting '{entry.key}'"
    section, heads = above if above in known else "", tuple[str, ...]()
    if entry.key in known:
        message = f"'{entry.key}' is a section, not a setting: it cannot be {shown(entry.value)}"
        section, heads = entry.key, tuple(f"{entry.key}.{part}" for part in ("name", "size", "path"))
    here = [key for key in (*infos, *known) if key.rpartition(".")[0] == section]
    suggestion: str | None = None
    if above in infos and infos[above].type == "mapping":
        suggestion, value = above, f"{{{name}: {value}}}"
    elif entry.key not in known:
        same = [key for key in here if fold(key) == fold(entry.key)]
        same += [key for key in infos if fold(key.rpartition(".")[2]) == fold(name)]
        suggestion = (
            next(iter(same), None) or _nearest_whole(entry.key, here) or nearest_key(entry.key, infos)
        )
    head = next((key for key in heads if key in infos), None)
    fixed = suggestion if suggestion and _fits(family, suggestion, entry.value) else head
    # A line of a file is below its section.
    is_elsewhere = entry.option is None and fixed is not None and fixed.rpartition(".")[0] != above
    return about_entry(
        entry,
        message,
        allowed=listed([key.rpartition(".")[2] for key in here], "explain"),
        did_you_mean=suggestion,
        fix=fixed and (f"{fixed}: {value}" if is_elsewhere else line(entry.option, fixed, value)),
    )


def _fits(family: str, key: str, value: Any) -> bool:
    """Whether the setting `key` may have the value of another one."""
    info = setting_infos(family).get(key)
    if info is None or info.type == "mapping":
        return info is not None
    try:
        if isinstance(value, str) and info.type not in ("text", "one of"):
            value = parse_yaml_scalar(value)
        settings_class(family).model_validate(nested({key: value}), strict=True)
    except (ValidationError, ValueError):
        return False
    return not unseen_by_schema(info, value)


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

    suggestion = nearest_match(name, keys)
    name_part, other = (fold(key.rpartition(".")[2]) for key in (name, suggestion or ""))
    is_like = "." not in name or SequenceMatcher(None, name_part, other).ratio() > _LIKE
    return suggestion if is_like else None


def set_twice(entry: TypedEntry, first: TypedEntry) -> Diagnostic:
    """A setting that one source sets twice, so that neither value is the later."""
    return about_entry(
        entry,
        f"{entry.key} is set twice, to {_as_typed(first)} and to {_as_typed(entry)}",
        where=f"{first.origin.where}, and {entry.origin.where}",
        fix="remove one of them",
    )


def rejected(info: SettingInfo, entry: TypedEntry, detail: Any, below: Setting | None) -> Diagnostic:
    """The error of a value, or of a part of it, that the schema rejects with `detail` of pydantic."""
    parts, kind = [*detail["loc"]][entry.key.count(".") + 1 :], detail["type"]
    if not info.items or not parts:
        return bad_value(info, entry, kind, below)
    last, is_name = str(parts[-1]), parts[-1] == "[key]"
    if is_name or kind in ("extra_forbidden", "missing"):
        parts.pop()
    path = entry.key + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    item = replace(entry, key=path, value=detail["input"], option=None, text=None)
    if is_name or kind == "extra_forbidden":
        name, options = (str(parts.pop()), info.names) if is_name else (last, tuple(info.items))
        message = f"unknown name '{name}' in {entry.key}" if is_name else f"{path} has no key '{name}'"
        nearest = nearest_match(name, options)
        found = about_entry(item, message, allowed=", ".join(options), did_you_mean=nearest)
    elif kind == "missing" or last not in info.items:
        problem = f"has no {last}" if kind == "missing" else f"{shown(item.value)} is not understood"
        found = about_entry(item, f"{path} {problem}", allowed=allowed(info.items.get(last, info)))
    else:
        found = replace(bad_value(replace(info.items[last], key=path), item, kind, None), fix=None)
    if reason := detail.get("ctx", {}).get("error"):
        found = replace(found, message=f"{path} {shown(item.value)} {reason}")
    is_list = any(isinstance(part, int) for part in parts)
    return found if is_list else replace(found, key=entry.key, where=where(entry.key, entry.origin))


def bad_value(info: SettingInfo, entry: TypedEntry, kind: str, below: Setting | None) -> Diagnostic:
    """A value that the schema rejects; `kind` is pydantic's error type, `below` the value before."""
    value, suggestion = entry.value, _nearest(info, entry.value, kind)
    fix = None if suggestion is None else line(entry.option, entry.key, suggestion)
    if entry.key == "model.family" and suggestion is None and isinstance(value, str):
        fix = model_line(value)
        suggestion = fix and meant(fix)
    text = f"{display_name(entry.key)} {_as_typed(entry)}"
    reason = _REASONS.get(kind, "is not understood")
    if "number" in info.type and not isinstance(value, int | list) and kind not in _REASONS:
        reason = f"is {'text, ' * isinstance(value, str)}not a {info.type}"
    elif info.type == "length" and type(value) is int:
        reason = "is out of range"
    elif info.type == "true or false" or (info.type == "text" and not isinstance(value, str)):
        reason = f"is not {info.type}"
    is_shown = below is not None and below.origin.layer != BUILT_IN_LAYER
    return about_entry(
        entry,
        f"unknown {text}"
        if isinstance(info.allowed, tuple) and isinstance(value, str)
        else f"{text} {reason}",
        overrides=(below.value, below.origin.where) if below is not None and is_shown else None,
        allowed=allowed(info),
        did_you_mean=None if suggestion is None else plain(suggestion),
        fix=fix,
    )


def _as_typed(entry: TypedEntry) -> str:
    if type(entry.value) is float and not entry.text:
        return str(entry.value)  # 1000.0, where a whole number is needed
    return entry.text if entry.text and not isinstance(entry.value, str) else shown(entry.value)


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
        kinds = (int,) if info.type == "whole number" else (int, float)
        return value if type(value) in kinds else None
    if info.type == "whole number" and isinstance(value, float) and value.is_integer():
        return int(value)
    is_plain = info.type == "text" and value is not None and not isinstance(value, str | list | dict)
    return f'"{plain(value)}"' if is_plain else None
