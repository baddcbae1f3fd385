"""The faults of single values: unknown keys, wrong types, what is out of range."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from launcher.base.diagnostics import Diagnostic, SettingsError, listed, nearest_match, plain, shown
from launcher.config import settings_file
from launcher.config.provenance import RESUMED_LAYER, Entry, Origin, Setting
from launcher.config.schema import SettingInfo, sections, setting_infos
from launcher.config.settings_file import Node, Unreadable

UNKNOWN = "unknown"
_LINE = re.compile(r":[0-9]+$")
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_WRONG_FORM = {"literal_error", "string_pattern_mismatch", "value_error", "not_known"}
_ON, _OFF = ("true", "on", "yes", "y", "1"), ("false", "off", "no", "n", "0")
_LISTS = {
    "mode": "list modes",
    "engine.name": "list engines",
    "model.family": "list models",
    "model.size": "list models",
}

_BESIDE = {"model.family": "or a task of your own: package.module:Class"}
"""What is legal beside the options of a table."""
_CALLED = {"engine.name": "engine", "model.family": "model", "model.size": "model size"}


def unknown_key(family: str, entry: Entry) -> Diagnostic:
    """A key that no package reads, or a section that is given a value."""
    if entry.key in sections(family):
        return _no_section(family, entry)
    section, _, last = entry.key.rpartition(".")
    section = section if section in sections(family) else ""
    here = [
        key
        for key in (*setting_infos(family), *sections(family))
        if key.rpartition(".")[0] == section
    ]
    by_last = {key.rpartition(".")[2]: key for key in setting_infos(family)}
    near = nearest_match(entry.key, here)
    if near is None and (name := nearest_match(last, by_last)):
        near = by_last[name]
    near = near or nearest_match(entry.key, setting_infos(family))
    names = sorted(key.rpartition(".")[2] for key in here)
    return Diagnostic(
        f"unknown setting '{entry.key}'",
        key=entry.key,
        value=entry.value,
        where=where(entry.key, entry.origin),
        allowed=listed(names, "explain"),
        did_you_mean=near,
        fix=near and _write(entry, near, entry.value),
        order=entry.order,
    )


def twice(entry: Entry, first: Entry) -> Diagnostic:
    """A key that one source gives twice, so that neither is the later."""
    return Diagnostic(
        f"{entry.key} is given twice, as {_as_typed(first)} and as {_as_typed(entry)}",
        key=entry.key,
        value=entry.value,
        where=f"{first.origin.place}, and {entry.origin.place}",
        fix="leave one of them out",
        order=entry.order,
    )


def bad_value(leaf: SettingInfo, entry: Entry, kind: str, beneath: Setting) -> Diagnostic:
    """A value that the schema refuses; `kind` is pydantic's name of the reason."""
    near = _nearest(leaf, entry, kind)
    name, reason = display_name(entry.key), _reason(leaf, entry.value, kind)
    is_unknown = reason == UNKNOWN
    return Diagnostic(
        f"unknown {name} {_as_typed(entry)}"
        if is_unknown
        else f"{name} {_as_typed(entry)} {reason}",
        key=entry.key,
        value=entry.value,
        where=where(entry.key, entry.origin),
        overrides=replaced(beneath),
        allowed=allowed(leaf),
        did_you_mean=None if near is None else plain(near),
        fix=None if near is None else _write(entry, entry.key, near),
        order=entry.order,
    )


def replaced(beneath: Setting) -> tuple[Any, str] | None:
    """What a message tells of the value that lay below; built-in ones are not worth a word."""
    if beneath.origin.layer == "built-in":
        return None
    return beneath.value, beneath.origin.place


def display_name(key: str) -> str:
    """A setting as a person calls it."""
    return _CALLED.get(key, key)


def allowed(leaf: SettingInfo) -> str:
    """What a setting may be, in one line."""
    if isinstance(leaf.allowed, tuple):
        told = listed(leaf.allowed, _LISTS.get(leaf.key, f"explain {leaf.key}"))
        told += f"; {_BESIDE[leaf.key]}" if leaf.key in _BESIDE else ""
    elif leaf.allowed:
        told = leaf.allowed
    else:
        told = f"a {leaf.type}" if leaf.type != "true or false" else leaf.type
        if leaf.range:
            told += f", {leaf.range}"
    # Where nothing is what it is anyway, to say that it may be nothing helps nobody.
    return f"{told}, or null" if leaf.nullable and leaf.default is not None else told


def unseen_by_schema(leaf: SettingInfo, value: Any) -> str | None:
    """What the types let pass: a name that no table holds, a number that is not finite."""
    if isinstance(value, str) and isinstance(leaf.allowed, tuple) and value not in leaf.allowed:
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


def _reason(leaf: SettingInfo, value: Any, kind: str) -> str:
    if kind in _OUT_OF_RANGE or (leaf.type == "length" and type(value) is int):
        return "is out of range"
    if kind == "finite_number":
        return "is not a finite number"
    if kind in ("too_short", "too_long"):
        return "has the wrong length"
    if kind in _WRONG_FORM and isinstance(value, list):
        return "is not understood"
    if kind in _WRONG_FORM and isinstance(value, str):
        return UNKNOWN if isinstance(leaf.allowed, tuple) else "is not understood"
    if isinstance(value, str) and "number" in leaf.type:
        return f"is text, not a {leaf.type}"
    if leaf.type == "text" and value is not None:
        return "is not text"
    if leaf.type in ("one of", "length", "text", "mapping"):
        return "is not understood"
    return f"is not {'' if leaf.type == 'true or false' else 'a '}{leaf.type}"


def _nearest(leaf: SettingInfo, entry: Entry, kind: str) -> Any:
    value = entry.value
    if leaf.nullable and str(value).lower() == "none":
        return "null"
    if leaf.type == "true or false" or isinstance(value, bool):
        return _as_switch(leaf, value)
    if isinstance(leaf.allowed, tuple) and isinstance(value, str):
        return _as_switch(leaf, value) or nearest_match(value, leaf.allowed)
    if kind in ("greater_than_equal", "less_than_equal") and not isinstance(value, list):
        return leaf.bounds.get("ge" if kind == "greater_than_equal" else "le")
    if "number" in leaf.type and isinstance(value, str):
        return _as_number(leaf, value)
    if leaf.type == "whole number" and isinstance(value, float) and value.is_integer():
        return int(value)
    return _as_text(leaf, value)


def _as_switch(leaf: SettingInfo, value: Any) -> str | None:
    """What was meant by one of the many words for on and off."""
    word = str(value).lower()
    for words, switched in ((_ON, ("true", "on")), (_OFF, ("false", "off"))):
        if word in words:
            allowed = ("true", "false") if leaf.type == "true or false" else leaf.allowed or ()
            return next((option for option in switched if option in allowed), None)
    return None


def _as_number(leaf: SettingInfo, text: str) -> int | float | None:
    """The number that a quoted text, or one of YAML 1.1, was meant to be."""
    try:
        value = settings_file.parse_yaml_scalar(re.sub(r"(?<=[0-9])_(?=[0-9])", "", text.strip()))
    except ValueError:
        return None
    kinds = (int,) if leaf.type == "whole number" else (int, float)
    return value if isinstance(value, kinds) and not isinstance(value, bool) else None


def _as_text(leaf: SettingInfo, value: Any) -> str | None:
    if (
        leaf.type == "text"
        and not isinstance(value, str | list | dict | bool)
        and value is not None
    ):
        return f'"{plain(value)}"'
    return None


def where(key: str, origin: Origin) -> str:
    """Where a value was written, as a message names it."""
    is_line = origin.layer != "command line" and _LINE.search(origin.place)
    return f"{origin.place} {key}" if is_line else origin.place


def fix_line(key: str, origin: Origin, value: Any) -> str:
    """What to type in the place of a value."""
    option = origin.place.split()[0] if origin.layer == "command line" else None
    if origin.layer == RESUMED_LAYER:
        option = "--set"  # what the old run had is replaced by what is typed now, not in its file
    return _line(option, key, value)


def custom_task_errors(error: SettingsError, origin: Origin) -> list[Diagnostic]:
    """The faults of a task of the person's own, with the place where they named it before."""
    told = where("model.family", origin)
    return [
        replace(
            fault,
            where=f"{told}; {fault.where}" if fault.where else told,
            fix=fault.fix
            or (fault.did_you_mean and fix_line("model.family", origin, fault.did_you_mean)),
        )
        for fault in error.diagnostics
    ]


def no_assignment(text: str, order: tuple[int, int]) -> Diagnostic:
    """A --set without its value."""
    return Diagnostic(
        f"--set {text} sets nothing",
        where=f"--set {text}",
        allowed="--set KEY=VALUE, such as  --set optim.lr=1e-3",
        order=order,
    )


def unreadable(text: str, error: Unreadable, order: tuple[int, int]) -> Diagnostic:
    """A value on the command line that is broken YAML."""
    return Diagnostic(f"{text} cannot be read: {error.problem}", where=text, order=order)


def _write(entry: Entry, key: str, value: Any) -> str:
    """The line to type where the entry stands, for the same or another key."""
    if entry.option is None and key.rpartition(".")[0] != entry.key.rpartition(".")[0]:
        return f"{key}: {plain(value)}"
    return _line(entry.option, key, value)


def _line(option: str | None, key: str, value: Any) -> str:
    if option is None:
        return f"{key.rpartition('.')[2]}: {plain(value)}"
    if option == "--set":
        return f"--set {key}={plain(value)}"
    space = "" if option.endswith(":") else " "  # --model FAMILY:
    return f"{option}{space}{plain(value)}"


def item_diagnostic(leaf: SettingInfo, entry: Entry, detail: Any) -> Diagnostic | None:
    """What to tell of one item of the list; `detail` is pydantic's. None: it is no list."""
    place, inner = _inner(detail["loc"])
    if place is None:
        return None
    name = f"{entry.key}[{place}]"
    at = replace(entry, key=name, value=detail["input"], option=None, text=None)
    at = replace(at, origin=_origin(entry, place, inner), order=_order(entry, place, inner))
    if detail["type"] == "extra_forbidden" and inner is not None:
        return _unknown(leaf, at, inner)
    if inner is not None and detail["type"] == "missing":
        return _fault(at, f"{name} has no {inner}", allowed(leaf.items[inner]))
    if inner is None or inner not in leaf.items:
        return _fault(at, f"{name} {shown(at.value)} is not understood", allowed(leaf))
    known = replace(leaf.items[inner], key=f"{name}.{inner}")
    at = replace(at, key=known.key)
    if reason := detail.get("ctx", {}).get("error"):
        return _fault(at, f"{known.key} {shown(at.value)} {reason}", allowed(known))
    nothing = Setting(None, Origin("built-in", "built-in"))
    return bad_value(known, at, detail["type"], nothing)


def _inner(loc: Any) -> tuple[int | None, str | None]:
    """Which item, and which key of it, a place in the tree is in."""
    at = next((n for n, part in enumerate(loc) if isinstance(part, int)), None)
    if at is None:
        return None, None
    return loc[at], loc[at + 1] if len(loc) > at + 1 else None


def _unknown(leaf: SettingInfo, at: Entry, inner: str) -> Diagnostic:
    near = nearest_match(inner, leaf.items)
    return replace(
        _fault(at, f"{at.key} has no key '{inner}'", ", ".join(leaf.items)),
        did_you_mean=near,
        fix=near and f"{near}: {plain(at.value)}",
    )


def _fault(at: Entry, what: str, allowed: str) -> Diagnostic:
    place = where(at.key, at.origin)
    return Diagnostic(
        what, key=at.key, value=at.value, where=place, allowed=allowed, order=at.order
    )


def _origin(entry: Entry, place: int, inner: str | None) -> Origin:
    """Where the item, or its key, stands: on a line of its own perhaps."""
    line = _item_line(entry, place, inner)
    if line is None:
        return entry.origin
    file = entry.origin.place.rpartition(":")[0]
    return replace(entry.origin, place=f"{file}:{line}")


def _order(entry: Entry, place: int, inner: str | None) -> tuple[int, int]:
    return entry.order[0], _item_line(entry, place, inner) or entry.order[1]


def _item_line(entry: Entry, place: int, inner: str | None) -> int | None:
    node = entry.node
    if node is None or not isinstance(node.value, list):
        return None
    item: Node = node.value[place]
    within = item.value.get(inner) if isinstance(item.value, dict) else None
    return within.line if within is not None else item.line
