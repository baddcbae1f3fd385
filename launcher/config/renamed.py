"""Settings that runs of earlier versions have under another name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RENAMED: dict[str, tuple[str, Callable[[Any], Any]]] = {"save.best": ("save.keep_best", int)}
"""The old key -> its key of today, and its value of then as one of today."""


def as_today(key: str, value: Any) -> tuple[str, Any]:
    """A setting of an earlier run as it is written today."""
    if key not in RENAMED:
        return key, value
    name, change = RENAMED[key]
    return name, change(value)


def tree_as_today(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`as_today` for a tree of settings whose sections keep their names."""
    found = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            found[name] = tree_as_today(value, f"{key}.")
        else:
            key, found_value = as_today(key, value)
            found[key.removeprefix(prefix)] = found_value
    return found
