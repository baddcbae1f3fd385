"""Questions to the layers of one resolved value: who set it, and what it was before."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from launcher.config.entries import MODE_LAYERS, USER_LAYERS
from launcher.config.resolved import Origin, Setting


def all_values(value: Setting) -> list[tuple[Any, Origin]]:
    """The value and all that it replaced, newest first."""
    return [(value.value, value.origin), *value.replaced]


def is_set_by_user(value: Setting) -> bool:
    """Whether a person's word decides: one that says again what the program has does not."""
    return first_origin(value).layer in USER_LAYERS


def first_origin(value: Setting) -> Origin:
    """The lowest origin from which on the value has been what it is."""
    origin = value.origin
    for below, place in value.replaced:
        if below != value.value:
            break
        origin = place
    return origin


def value_without(value: Setting, layers: Collection[str]) -> Any:
    """The value as it would be without some layers."""
    return next(v for v, origin in all_values(value) if origin.layer not in layers)


def mode_default_value(value: Setting) -> Any:
    """The value in mode default, before any word of the person."""
    return value_without(value, (*USER_LAYERS, *MODE_LAYERS, "engine", "machine", "solved"))


def shipped_value(value: Setting) -> Any:
    """The value as mode and family have it, before any word of the person."""
    return value_without(value, (*USER_LAYERS, "engine", "machine", "solved"))


def overridden(value: Setting, new: Any, origin: Origin) -> Setting:
    """`new` laid over a value."""
    return Setting(new, origin, tuple(all_values(value)))
