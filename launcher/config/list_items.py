"""Errors of one item of a list, such as a file to download: its place, its keys, its values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.base.diagnostics import Diagnostic, nearest_match, plain, shown
from launcher.config import errors
from launcher.config.provenance import BUILT_IN_LAYER, Entry, Origin, Setting
from launcher.config.schema import SettingInfo
from launcher.config.settings_file import Node


def item_diagnostic(info: SettingInfo, entry: Entry, detail: Any) -> Diagnostic | None:
    """The error of one item of a list; `detail` is pydantic's. None: the value is not a list."""
    place, inner = _inner(detail["loc"])
    if place is None:
        return None
    name = f"{entry.key}[{place}]"
    at = replace(entry, key=name, value=detail["input"], option=None, text=None)
    if (line := _item_line(entry, place, inner)) is not None:  # it may have a line of its own
        file = entry.origin.where.rpartition(":")[0]
        origin = replace(entry.origin, where=f"{file}:{line}")
        at = replace(at, origin=origin, order=(entry.order[0], line))
    if detail["type"] == "extra_forbidden" and inner is not None:
        near = nearest_match(inner, info.items)
        fix = near and f"{near}: {plain(at.value)}"
        unknown = _item_error(at, f"{name} has no key '{inner}'", ", ".join(info.items))
        return replace(unknown, did_you_mean=near, fix=fix)
    if inner is not None and detail["type"] == "missing":
        return _item_error(at, f"{name} has no {inner}", errors.allowed(info.items[inner]))
    if inner is None or inner not in info.items:
        return _item_error(at, f"{name} {shown(at.value)} is not understood", errors.allowed(info))
    known = replace(info.items[inner], key=f"{name}.{inner}")
    at = replace(at, key=known.key)
    if reason := detail.get("ctx", {}).get("error"):
        return _item_error(at, f"{known.key} {shown(at.value)} {reason}", errors.allowed(known))
    below = Setting(None, Origin(BUILT_IN_LAYER, BUILT_IN_LAYER))
    return errors.bad_value(known, at, detail["type"], below)


def _inner(loc: Any) -> tuple[int | None, str | None]:
    """The index of the item, and its key, of a location in the tree."""
    at = next((n for n, part in enumerate(loc) if isinstance(part, int)), None)
    if at is None:
        return None, None
    return loc[at], loc[at + 1] if len(loc) > at + 1 else None


def _item_error(at: Entry, what: str, allowed: str) -> Diagnostic:
    place = errors.where(at.key, at.origin)
    return Diagnostic(
        what, key=at.key, value=at.value, where=place, allowed=allowed, order=at.order
    )


def _item_line(entry: Entry, place: int, inner: str | None) -> int | None:
    node = entry.node
    if node is None or not isinstance(node.value, list):
        return None
    item: Node = node.value[place]
    within = item.value.get(inner) if isinstance(item.value, dict) else None
    return within.line if within is not None else item.line
