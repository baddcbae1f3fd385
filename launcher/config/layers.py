"""Lays layers of settings over one another, lowest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from launcher.base.diagnostics import Diagnostic
from launcher.config import errors as refusals
from launcher.config import items, transforms
from launcher.config.entries import MODE_LAYERS, PROFILE_LAYER, Entry, Layer
from launcher.config.leaves import setting_infos
from launcher.config.resolved import Origin, Setting
from launcher.config.schema import config_of, get, settings_class
from training.settings import nested


def merge_layers(
    family: str, layers: Sequence[Layer]
) -> tuple[dict[str, Setting], list[Diagnostic]]:
    """Each leaf with its value and origins, and what is wrong with any layer.

    A faulty value is left out, so that all faults of one start are found together.
    """
    values = {
        key: Setting(_plain(leaf.default), Origin("built-in", "built-in"))
        for key, leaf in setting_infos(family).items()
    }
    diagnostics: list[Diagnostic] = []
    default: Mapping[str, Setting] | None = None
    for layer in layers:
        if layer.name in MODE_LAYERS and default is None:
            default = dict(values)
        entries = _usable(family, layer, values, diagnostics)
        if layer.name in MODE_LAYERS:
            entries = [_changed(family, entry, default or values) for entry in entries]
        elif layer.name == PROFILE_LAYER:
            entries = [_changed(family, entry, values) for entry in entries]
        allowed, wrong = _typed(family, entries, values)
        diagnostics.extend(wrong)
        for entry, value in allowed:
            below = values[entry.key]
            if entry.key == "promise":
                value = {**below.value, **value}
            history = ((below.value, below.origin), *below.replaced)
            values[entry.key] = Setting(value, entry.origin, history)
    return values, diagnostics


def _usable(
    family: str, layer: Layer, values: Mapping[str, Setting], diagnostics: list[Diagnostic]
) -> list[Entry]:
    """The layer's entries whose key there is; others become faults."""
    seen: dict[str, Entry] = {}
    for entry in layer.entries:
        if entry.key not in values:
            # What a mode or profile says of models and data in general, this family may not have.
            if layer.name not in ("mode", PROFILE_LAYER) or not entry.key.startswith(
                ("model.", "data.")
            ):
                diagnostics.append(refusals.unknown_key(family, entry))
        elif _is_torn(seen.get(entry.key), entry):
            diagnostics.append(refusals.twice(entry, seen[entry.key]))
        else:
            seen[entry.key] = entry
    return list(seen.values())


def _is_torn(first: Entry | None, entry: Entry) -> bool:
    """Whether two entries of one layer disagree, and none of them is the later on the line."""
    if first is None:
        return False
    if entry.option is None:
        return True  # nested and dotted in one file
    return first.option != entry.option and first.value != entry.value


def _changed(family: str, entry: Entry, default: Mapping[str, Setting]) -> Entry:
    if not transforms.is_change(entry.value):
        return entry
    sizes = tuple(config_of(family).SIZES)
    before = default[entry.key].value
    value = transforms.apply_change(entry.value, before, sizes)
    origin = replace(entry.origin, how=transforms.describe_change(entry.value, before, value))
    return Entry(entry.key, value, origin, entry.option, entry.order)


def _typed(
    family: str, entries: Sequence[Entry], values: Mapping[str, Setting]
) -> tuple[list[tuple[Entry, Any]], list[Diagnostic]]:
    """The entries with their values as the schema reads them, and a fault for each other one."""
    by_key = {entry.key: entry for entry in entries}
    diagnostics: dict[str, Diagnostic] = {}
    wrong: set[str] = set()
    allowed = settings_class(family)
    settings = None
    try:
        tree = nested({key: entry.value for key, entry in by_key.items()})
        settings = allowed.model_validate(tree, strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = _key_of(detail["loc"], by_key)
            leaf, entry, beneath = setting_infos(family)[key], by_key[key], values[key]
            fault = items.item_diagnostic(leaf, entry, detail) if leaf.items else None
            fault = fault or refusals.bad_value(leaf, entry, detail["type"], beneath)
            wrong.add(key)
            diagnostics.setdefault(fault.key or key, fault)
        tree = nested({key: e.value for key, e in by_key.items() if key not in wrong})
        settings = allowed.model_validate(tree, strict=True)
    for key, entry in by_key.items():
        leaf = setting_infos(family)[key]
        if kind := refusals.unseen_by_schema(leaf, entry.value):
            wrong.add(key)
            diagnostics.setdefault(key, refusals.bad_value(leaf, entry, kind, values[key]))
    read = [
        (entry, _plain(get(settings, key))) for key, entry in by_key.items() if key not in wrong
    ]
    return read, list(diagnostics.values())


def _key_of(loc: Sequence[Any], keys: Mapping[str, Any]) -> str:
    """The leaf that a place in the tree belongs to; inside a leaf the rest is left off."""
    parts = [str(part) for part in loc]
    return next(key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in keys)


def _plain(value: Any) -> Any:
    """A value without the schema's classes: as mappings, with what was written in them."""
    if isinstance(value, list):
        return [
            item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item
            for item in value
        ]
    if isinstance(value, dict):
        return {
            key: item if isinstance(item, dict) else item.model_dump(exclude_none=True)
            for key, item in value.items()
        }
    return value
