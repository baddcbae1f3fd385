"""Values of JSON as texts for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact."""
    return [(str(name).replace("_", " "), text(value)) for name, value in facts.items()]


def text(value: Any) -> str:
    """A fact as text: numbers in groups of three digits, mappings in a row."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_within(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(text(inner) for inner in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _within(value: Any) -> str:
    return f"({text(value)})" if isinstance(value, Mapping) and value else text(value)
