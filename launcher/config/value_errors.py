"""Diagnostics of single values: unknown settings, and what the schema rejects."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from launcher.base.diagnostics import OFF, ON, Diagnostic, fold, listed, nearest_match, plain, shown
from launcher.config.argument_errors import meant, model_line
from launcher.config.errors import about_entry, allowed, display_name, fix_line
from launcher.config.options import OPTIONS
from launcher.config.provenance import BUILT_IN_LAYER, Setting, TypedEntry
from launcher.config.schema import SettingInfo, sections, setting_infos


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


def rejected(info: SettingInfo, entry: TypedEntry, detail: Mapping[str, Any], below: Setting) -> Diagnostic:
    """The error of a value, or of a part of it, that the schema rejects with `detail` of pydantic.

    `below` is the value that it overrides.
    """
    loc, kind, path = list(detail["loc"][entry.key.count(".") + 1 :]), detail["type"], entry.key
    parts = loc if "mapping" in info.type else []
    is_name = parts[-1:] == ["[key]"] or kind == "extra_forbidden"
    name = str(parts.pop()) if is_name or (parts and kind == "missing") else ""
    if any(isinstance(part, int) for part in parts):  # an item of a list
        path += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    value, suggestion, fix = detail.get("input") if parts else entry.value, None, None
    reason, should, rest = detail["msg"].partition("should")
    if is_name:
        name = str(parts[-1]) if name == "[key]" else name
        message = f"unknown name '{name}' in {path}"
        suggestion = nearest_match(name, re.findall(r"\w+", str(info.allowed)))
    elif name:
        message = f"{path} has no {name}"
    elif isinstance(value, str) and isinstance(info.allowed, tuple):
        message = f"unknown {display_name(path)} {shown(value)}"
    else:
        if kind == "string_pattern_mismatch" or (kind == "value_error" and not parts):
            reason = "is not understood"
        elif should:
            reason = f"should{rest}"
        else:
            reason = str(detail.get("ctx", {}).get("error", reason))
        message = f"{display_name(path)} {shown(value)} {reason}"
    if not parts and not is_name:
        suggestion = _nearest(info, value, kind)
        fix = suggestion and fix_line(entry.key, entry.origin, suggestion)
        if entry.key == "model.family" and suggestion is None and isinstance(value, str):
            fix = model_line(value)
            suggestion = fix and meant(fix)
    is_shown = not parts and below.origin.layer != BUILT_IN_LAYER
    return about_entry(
        replace(entry, key=path),
        message,
        value=value,
        overrides=(below.value, below.origin.where) if is_shown else None,
        allowed=allowed(info),
        did_you_mean=suggestion,
        fix=fix,
    )


def _nearest(info: SettingInfo, value: Any, kind: str) -> str | None:
    """The text that was probably meant; None: it is not known."""
    word = str(value).lower()
    names = ("true", "false") if info.type == "true or false" else info.allowed
    if info.nullable and word == "none":
        return "null"
    if isinstance(names, tuple):
        for words, switched in ((ON, ("true", "on")), (OFF, ("false", "off"))):
            if word in words and (option := next((s for s in switched if s in names), None)):
                return option
        return nearest_match(value, names) if isinstance(value, str) else None
    bound = {"greater_than_equal": "ge", "less_than_equal": "le"}.get(kind, "")
    return plain(info.bounds[bound]) if bound in info.bounds and not isinstance(value, list) else None
