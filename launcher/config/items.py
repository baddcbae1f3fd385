"""The faults of a setting that is a list of mappings, each with the item and key it stands in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.base.diagnostics import Diagnostic, nearest_match, plain, shown
from launcher.config import errors
from launcher.config.entries import Entry
from launcher.config.leaves import SettingInfo
from launcher.config.nodes import Node
from launcher.config.resolved import Origin, Setting


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
        return _fault(at, f"{name} has no {inner}", errors.allowed(leaf.items[inner]))
    if inner is None or inner not in leaf.items:
        return _fault(at, f"{name} {shown(at.value)} is not understood", errors.allowed(leaf))
    known = replace(leaf.items[inner], key=f"{name}.{inner}")
    at = replace(at, key=known.key)
    if reason := detail.get("ctx", {}).get("error"):
        return _fault(at, f"{known.key} {shown(at.value)} {reason}", errors.allowed(known))
    nothing = Setting(None, Origin("built-in", "built-in"))
    return errors.bad_value(known, at, detail["type"], nothing)


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
    place = errors.where(at.key, at.origin)
    return Diagnostic(
        what, key=at.key, value=at.value, where=place, allowed=allowed, order=at.order
    )


def _origin(entry: Entry, place: int, inner: str | None) -> Origin:
    """Where the item, or its key, stands: on a line of its own perhaps."""
    line = _line(entry, place, inner)
    if line is None:
        return entry.origin
    file = entry.origin.place.rpartition(":")[0]
    return replace(entry.origin, place=f"{file}:{line}")


def _order(entry: Entry, place: int, inner: str | None) -> tuple[int, int]:
    return entry.order[0], _line(entry, place, inner) or entry.order[1]


def _line(entry: Entry, place: int, inner: str | None) -> int | None:
    node = entry.node
    if node is None or not isinstance(node.value, list):
        return None
    item: Node = node.value[place]
    within = item.value.get(inner) if isinstance(item.value, dict) else None
    return within.line if within is not None else item.line
