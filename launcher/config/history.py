"""Questions to the layers of one resolved value: who set it, and what it was before."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from launcher.config.entries import MODES, PERSONS
from launcher.config.resolved import Origin, Value


def layers_of(value: Value) -> list[tuple[Any, Origin]]:
    """The value and all that it replaced, newest first."""
    return [(value.value, value.origin), *value.replaced]


def by_person(value: Value) -> bool:
    """Whether a person's word decides: one that says again what the program has does not."""
    return introduced(value).layer in PERSONS


def introduced(value: Value) -> Origin:
    """The lowest origin from which on the value has been what it is."""
    origin = value.origin
    for below, place in value.replaced:
        if below != value.value:
            break
        origin = place
    return origin


def without(value: Value, layers: Collection[str]) -> Any:
    """The value as it would be without some layers."""
    return next(v for v, origin in layers_of(value) if origin.layer not in layers)


def default(value: Value) -> Any:
    """The value in mode default, before any word of the person."""
    return without(value, (*PERSONS, *MODES, "engine", "machine", "solved"))


def shipped(value: Value) -> Any:
    """The value as mode and family have it, before any word of the person."""
    return without(value, (*PERSONS, "engine", "machine", "solved"))


def over(value: Value, new: Any, origin: Origin) -> Value:
    """`new` laid over a value."""
    return Value(new, origin, tuple(layers_of(value)))
