"""Diagnostics of single values: unknown settings, wrong types, values out of range."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from launcher.base.diagnostics import OFF, ON, Diagnostic, fold, listed, nearest_match, plain, shown
from launcher.config import errors, promise_scope
from launcher.config.argument_errors import meant
from launcher.config.errors import allowed, display_name, nearest_file, overrides, where
from launcher.config.model_lines import model_line, path_line
from launcher.config.options import OPTIONS
from launcher.config.provenance import BUILT_IN_LAYER, Origin, Setting, TypedEntry
from launcher.config.schema import SettingInfo, sections, setting_infos, settings_class, unseen_by_schema
from launcher.config.settings_file import parse_yaml_scalar
from models.catalog import is_custom
from training.settings import TRACKERS, nested

_LIKE = 0.4
"""`rl` and `lr`, `lr` and `lr_scale` are similar; `rank` and `lr` are not."""
_REASONS = {
    **dict.fromkeys(
        ("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "is out of range"
    ),
    "finite_number": "is not a finite number",
    **dict.fromkeys(("too_short", "too_long"), "has the wrong length"),
}


def unknown_key(family: str, entry: TypedEntry) -> Diagnostic:
    """A key that does not exist, or a section that is given a value."""
    infos, value = setting_infos(family), plain(entry.value)
    if entry.key in sections(family):
        inner = [key for key in infos if key.startswith(f"{entry.key}.")]
        parts = (f"{entry.key}.{part}" for part in ("name", "size", "path"))
        head = next((key for key in parts if key in infos), None)
        return _about(
            entry,
            f"'{entry.key}' is a section, not a setting: it cannot be {shown(entry.value)}",
            allowed=listed([key.rpartition(".")[2] for key in inner], "explain"),
            fix=head and _write(entry, head, entry.value),
        )
    suggestion: str | None
    above, _, name = entry.key.rpartition(".")
    section = above if above in sections(family) else ""
    keys = (*infos, *sections(family))
    here = [key for key in keys if key.rpartition(".")[0] == section]
    if above in infos and infos[above].type == "mapping":
        suggestion, value = above, f"{{{name}: {value}}}"
    else:
        same = [key for key in infos if fold(key.rpartition(".")[2]) == fold(name)]
        exact = [key for key in here if fold(key) == fold(entry.key)]
        near = _nearest_whole(entry.key, here)
        suggestion = next(iter([*exact, *same]), near) or nearest_key(entry.key, infos)
    fits = suggestion is not None and _fits(family, suggestion, entry.value)
    fix = _write(entry, suggestion, value) if suggestion and fits else None
    if entry.key == "data.path" and is_custom(family):
        suggestion, field = None, "class Data(BaseModel): path: str | None = None"
        fix = f"in {family.partition(':')[2]}:  {field}  (samples reads self.data_settings.path)"
    return _about(
        entry,
        f"unknown setting '{entry.key}'",
        allowed=listed(sorted(key.rpartition(".")[2] for key in here), "explain"),
        did_you_mean=suggestion,
        fix=fix,
    )


def _fits(family: str, key: str, value: Any) -> bool:
    """Whether the setting `key` may have the value of another one."""
    info = setting_infos(family).get(key)
    try:
        if isinstance(value, str) and info is not None and info.type not in ("text", "one of"):
            value = parse_yaml_scalar(value)
        settings_class(family).model_validate(nested({key: value}), strict=True)
    except (ValidationError, ValueError):
        return info is not None and info.type == "mapping"
    return info is not None and not unseen_by_schema(info, value)


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
    suggestion = _nearest(info, entry.value, kind)
    fix = None if suggestion is None else _write(entry, entry.key, suggestion)
    if entry.key == "model.family" and suggestion is None and isinstance(entry.value, str):
        fix = model_line(entry.value)
        suggestion = fix and meant(fix)
        if fix is None and entry.value.startswith((".", "/", "~")):
            if error := errors.impossible_path(entry):
                return error
            suggestion = nearest_file(entry.value)
            return _about(
                entry,
                f"model {entry.value!r} does not exist",
                allowed="a folder of a model of transformers, a script of a custom task, or a run",
                did_you_mean=suggestion,
                fix=suggestion and path_line(Path(suggestion).expanduser()),
            )
    text, is_name = f"{display_name(entry.key)} {_as_typed(entry)}", isinstance(info.allowed, tuple)
    if info.type == "whole number" and type(entry.value) is float and not entry.text:
        text = f"{display_name(entry.key)} {entry.value}"  # 1000.0
    is_number = info.type == "length" and type(entry.value) is int
    reason = "is out of range" if is_number else _REASONS.get(kind)
    if reason is None and isinstance(entry.value, str) and "number" in info.type:
        reason = f"is text, not a {info.type}"
    if reason is None:
        kinds = {"text": "text", "true or false": info.type}
        a_number = f"a {info.type}" if "number" in info.type else ""
        noun = kinds.get(info.type, a_number)
        is_of_form = isinstance(entry.value, str | list) and info.type != "true or false"
        reason = f"is not {noun}" if noun and not is_of_form else "is not understood"
    return _about(
        entry,
        f"unknown {text}" if is_name and isinstance(entry.value, str) else f"{text} {reason}",
        overrides=overrides(below),
        allowed=allowed(info),
        did_you_mean=None if suggestion is None else plain(suggestion),
        fix=fix,
    )


def _as_typed(entry: TypedEntry) -> str:
    return entry.text if entry.text and not isinstance(entry.value, str) else shown(entry.value)


def _nearest(info: SettingInfo, value: Any, kind: str) -> Any:
    """The value that was probably meant; None: it is not known."""
    word = str(value).lower()
    names = ("true", "false") if info.type == "true or false" else info.allowed
    if info.nullable and word == "none":
        return "null"
    if info.key == "track":
        texts = list(map(str, value)) if isinstance(value, list) else str(value).split(",")
        parts = [text.partition(":") for text in texts]
        names_near = [nearest_match(name, TRACKERS) for name, _, _ in parts]
        if None in names_near or names_near == [name for name, _, _ in parts]:
            return None
        pairs = zip(names_near, parts, strict=True)
        return ",".join(f"{name}{colon}{rest}" for name, (_, colon, rest) in pairs)
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
    is_plain = not isinstance(value, str | list | dict) and value is not None
    return f'"{plain(value)}"' if info.type == "text" and is_plain else None


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
    name = f"{entry.key}[{number}]"
    item = replace(entry, key=name, value=detail["input"], option=None, text=None)
    if kind == "extra_forbidden" and inner is not None:
        return _about(
            item,
            f"{name} has no key '{inner}'",
            allowed=", ".join(info.items),
            did_you_mean=nearest_match(inner, info.items),
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
    return replace(bad_value(inner_info, item, kind, built_in), fix=None)


def _about(entry: TypedEntry, message: str, **parts: Any) -> Diagnostic:
    """The error of an entry; `parts` are fields beside or instead of its own."""
    fields = {"key": entry.key, "value": entry.value, "order": entry.order}
    fields["where"] = where(entry.key, entry.origin)
    return Diagnostic(message, **(fields | parts))
