"""Diagnostics of single values: unknown settings, wrong types, values out of range."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import (
    OFF,
    ON,
    Diagnostic,
    fold,
    listed,
    nearest_match,
    plain,
    shown,
)
from launcher.config import errors, promise_scope, settings_file
from launcher.config.argument_errors import meant
from launcher.config.errors import allowed, display_name, nearest_file, overrides, where
from launcher.config.model_lines import model_line, path_line
from launcher.config.options import OPTIONS
from launcher.config.provenance import BUILT_IN_LAYER, Origin, Setting, TypedEntry
from launcher.config.schema import SettingInfo, sections, setting_infos, unseen_by_schema
from models.catalog import is_custom
from training.settings import TRACKERS

UNKNOWN = "unknown"
_LIKE = 0.4
"""`rl` and `lr`, `lr` and `lr_scale` are similar; `rank` and `lr` are not."""
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_WRONG_FORM = {"literal_error", "string_pattern_mismatch", "value_error", "not_known"}


def unknown_key(family: str, entry: TypedEntry) -> Diagnostic:
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
    suggestion, fix = _nearest_key(family, entry, here)
    if entry.key == "data.path" and is_custom(family):
        suggestion, fix = (
            None,
            (
                f"in {family.partition(':')[2]}:  class Data(BaseModel): path: str | None = None  "
                "(samples reads self.data_settings.path)"
            ),
        )
    return _about(
        entry,
        f"unknown setting '{entry.key}'",
        allowed=listed(names, "explain"),
        did_you_mean=suggestion,
        fix=fix,
    )


def _nearest_key(
    family: str, entry: TypedEntry, here: Sequence[str]
) -> tuple[str | None, str | None]:
    """The key that was probably meant, and the line to type; `here`: the keys of its section."""
    infos = setting_infos(family)
    above, _, name = entry.key.rpartition(".")
    if above in infos and infos[above].type == "mapping":
        return above, _write(entry, above, f"{{{name}: {plain(entry.value)}}}")
    suggestion = _nearest_whole(entry.key, here)
    if fold(suggestion or "") != fold(entry.key):  # `DROPOUT` is model.dropout, not nearly `report`
        named = next((key for key in infos if fold(key.split(".")[-1]) == fold(entry.key)), None)
        suggestion = named or suggestion or nearest_key(entry.key, infos)
    fits = suggestion is not None and (
        suggestion not in infos or _may_be(infos[suggestion], entry.value)
    )
    return suggestion, _write(entry, suggestion, entry.value) if suggestion and fits else None


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

    suggestion = nearest_match(name, keys)
    name_part, meant = (fold(key.rpartition(".")[2]) for key in (name, suggestion or ""))
    is_like = "." not in name or SequenceMatcher(None, name_part, meant).ratio() > _LIKE
    return suggestion if is_like else None


def set_twice(entry: TypedEntry, first: TypedEntry) -> Diagnostic:
    """A setting that one source sets twice, so that neither value is the later."""
    return _about(
        entry,
        f"{entry.key} is set twice, to {_as_typed(first)} and to {_as_typed(entry)}",
        where=f"{first.origin.where}, and {entry.origin.where}",
        fix="remove one of them",
    )


def bad_value(info: SettingInfo, entry: TypedEntry, kind: str, below: Setting) -> Diagnostic:
    """A value that the schema rejects; `kind` is pydantic's error type."""
    suggestion = _nearest(info, entry, kind)
    fix = None if suggestion is None else _write(entry, entry.key, suggestion)
    if entry.key == "model.family" and suggestion is None and isinstance(entry.value, str):
        fix = model_line(entry.value)
        suggestion = fix and meant(fix)
        if fix is None and entry.value.startswith((".", "/", "~")):
            if error := errors.impossible_path(entry):
                return error
            suggestion = nearest_file(entry.value)
            path = Path(entry.value).expanduser().absolute()
            return _about(
                entry,
                f"model {entry.value!r} does not exist ({path})",
                allowed="a folder of a model of transformers, a script of a custom task, or a run",
                did_you_mean=suggestion,
                fix=suggestion and path_line(Path(suggestion).expanduser()),
            )
    text, reason = f"{display_name(entry.key)} {_as_typed(entry)}", _reason(info, entry.value, kind)
    return _about(
        entry,
        f"unknown {text}" if reason == UNKNOWN else f"{text} {reason}",
        overrides=overrides(below),
        allowed=allowed(info),
        did_you_mean=None if suggestion is None else plain(suggestion),
        fix=fix,
    )


def _no_section(family: str, entry: TypedEntry) -> Diagnostic:
    keys = [key for key in setting_infos(family) if key.startswith(f"{entry.key}.")]
    name = next((key for key in ("name", "size", "path") if f"{entry.key}.{key}" in keys), None)
    return _about(
        entry,
        f"'{entry.key}' is a section, not a setting: it cannot be {shown(entry.value)}",
        allowed=listed([key.rpartition(".")[2] for key in keys], "explain"),
        fix=_write(entry, f"{entry.key}.{name}", entry.value) if name else None,
    )


def _as_typed(entry: TypedEntry) -> str:
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


def _nearest(info: SettingInfo, entry: TypedEntry, kind: str) -> Any:
    value = entry.value
    if info.nullable and str(value).lower() == "none":
        return "null"
    if info.type == "true or false" or isinstance(value, bool):
        return _as_switch(info, value)
    if info.key == "track":
        return _nearest_trackers(value)
    if isinstance(info.allowed, tuple) and isinstance(value, str):
        return _as_switch(info, value) or nearest_match(value, info.allowed)
    if kind in ("greater_than_equal", "less_than_equal") and not isinstance(value, list):
        return info.bounds.get("ge" if kind == "greater_than_equal" else "le")
    if "number" in info.type and isinstance(value, str):
        return _as_number(info, value)
    if info.type == "whole number" and isinstance(value, float) and value.is_integer():
        return int(value)
    is_plain = not isinstance(value, str | list | dict) and value is not None
    return f'"{plain(value)}"' if info.type == "text" and is_plain else None


def _nearest_trackers(value: Any) -> str | None:
    """The trackers that were meant; None: only a part after a colon is wrong."""
    texts = list(map(str, value)) if isinstance(value, list) else str(value).split(",")
    found = []
    for name, colon, rest in (text.partition(":") for text in texts):
        if (nearest := nearest_match(name, TRACKERS)) is None:
            return None
        found.append(f"{nearest}{colon}{rest}")
    return ",".join(found) if found != texts else None


def _as_switch(info: SettingInfo, value: Any) -> str | None:
    """The switch that was meant by one of the many names of on and off."""
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


def _write(entry: TypedEntry, key: str, value: Any) -> str:
    """The line to type instead of the entry, for the same or another key."""
    if entry.option is None and key.rpartition(".")[0] != entry.key.rpartition(".")[0]:
        return f"{key}: {plain(value)}"
    return errors.line(entry.option, key, value)


def rejected(info: SettingInfo, entry: TypedEntry, detail: Any, below: Setting) -> Diagnostic:
    """The error of a value, or of a list's item, that the schema rejects with `detail`."""
    loc, kind = detail["loc"], detail["type"]
    if info.key == promise_scope.KEY and len(loc) > 1:
        return promise_scope.rejected(entry, detail)
    index = next((n for n, part in enumerate(loc) if isinstance(part, int)), None)
    if not info.items or index is None:
        return bad_value(info, entry, kind, below)
    number, inner = loc[index], next(iter(loc[index + 1 :]), None)
    name, origin, order = f"{entry.key}[{number}]", entry.origin, entry.order
    item = TypedEntry(name, detail["input"], origin, order=order)
    if kind == "extra_forbidden" and inner is not None:
        suggestion = nearest_match(inner, info.items)
        return _about(
            item,
            f"{name} has no key '{inner}'",
            allowed=", ".join(info.items),
            did_you_mean=suggestion,
            fix=suggestion and f"{suggestion}: {plain(item.value)}",
        )
    if kind == "missing" and inner is not None:
        return _about(item, f"{name} has no {inner}", allowed=allowed(info.items[inner]))
    if inner is None or inner not in info.items:
        return _about(item, f"{name} {shown(item.value)} is not understood", allowed=allowed(info))
    inner_info = replace(info.items[inner], key=f"{name}.{inner}")
    item = replace(item, key=inner_info.key)
    if reason := detail.get("ctx", {}).get("error"):
        message = f"{item.key} {shown(item.value)} {reason}"
        return _about(item, message, allowed=allowed(inner_info))
    built_in = Setting(None, Origin(BUILT_IN_LAYER, BUILT_IN_LAYER))
    return bad_value(inner_info, item, kind, built_in)


def _about(entry: TypedEntry, message: str, **parts: Any) -> Diagnostic:
    """The error of an entry; `parts` are fields beside or instead of its own."""
    fields = {"key": entry.key, "value": entry.value, "order": entry.order}
    fields["where"] = where(entry.key, entry.origin)
    return Diagnostic(message, **(fields | parts))
