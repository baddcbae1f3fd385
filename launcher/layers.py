"""Layers of settings, and how they are laid over one another, lowest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from launcher import refusals, transforms
from launcher.leaves import leaves, sections
from launcher.messages import Fault
from launcher.resolved import Origin, Value
from launcher.schema import config_of, get, nested, settings_class
from launcher.source import Node, plain

PERSONS = ("config", "command line")
"""The layers that a person writes; all others come with the program."""
MODES = ("mode", "family mode", "size mode")
"""The layers that may change a default in the place of setting a value."""


@dataclass(frozen=True)
class Entry:
    """One value as it was written."""

    key: str
    value: Any
    origin: Origin
    option: str | None = None
    """The option that carried it; None: a file."""
    order: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Layer:
    """Values of one source."""

    name: str
    entries: Sequence[Entry]


def file_layer(name: str, root: Node, place: str, family: str, rank: int) -> Layer:
    """The layer that a mapping of a file makes; `place` is the file as messages name it."""
    entries = [
        Entry(key, plain(node), Origin(name, f"{place}, line {node.line}"), None, (rank, node.line))
        for key, node in flat(root, sections(family))
    ]
    return Layer(name, entries)


def flat(node: Node, known: frozenset[str], prefix: str = "") -> Iterator[tuple[str, Node]]:
    """The dotted keys of a tree; descends where a key is one of the `known` sections."""
    for name, child in node.value.items():
        key = prefix + name
        if key in known and isinstance(child.value, dict):
            yield from flat(child, known, f"{key}.")
        elif key in known and child.value is None:
            continue  # a section with nothing in it
        else:
            yield key, child


def find(root: Node, key: str) -> Node | None:
    """The value of a dotted key in a tree whose sections may be nested or dotted."""
    if key in root.value:
        found: Node = root.value[key]
        return found
    for at in (at for at, letter in enumerate(key) if letter == "."):
        section = root.value.get(key[:at])
        if section is not None and isinstance(section.value, dict):
            return find(section, key[at + 1 :])
    return None


def merge(family: str, layers: Sequence[Layer]) -> tuple[dict[str, Value], list[Fault]]:
    """Each leaf with its value and origins, and what is wrong with any layer.

    A faulty value is left out, so that all faults of one start are found together.
    """
    values = {
        key: Value(_plain(leaf.default), Origin("built-in", "built-in"))
        for key, leaf in leaves(family).items()
    }
    faults: list[Fault] = []
    default: Mapping[str, Value] | None = None
    for layer in layers:
        if layer.name in MODES and default is None:
            default = dict(values)
        entries = _usable(family, layer, values, faults)
        if layer.name in MODES:
            entries = [_changed(family, entry, default or values) for entry in entries]
        legal, wrong = _typed(family, entries, values)
        faults.extend(wrong)
        for entry, value in legal:
            below = values[entry.key]
            if entry.key == "promise":
                value = {**below.value, **value}
            history = ((below.value, below.origin), *below.replaced)
            values[entry.key] = Value(value, entry.origin, history)
    return values, faults


def _usable(
    family: str, layer: Layer, values: Mapping[str, Value], faults: list[Fault]
) -> list[Entry]:
    """The layer's entries whose key there is; others become faults."""
    seen: dict[str, Entry] = {}
    for entry in layer.entries:
        if entry.key not in values:
            # What a mode says of models and data in general, this family may not have.
            if layer.name != "mode" or not entry.key.startswith(("model.", "data.")):
                faults.append(refusals.unknown_key(family, entry))
        elif entry.key in seen and entry.option is None:
            faults.append(refusals.twice(entry, seen[entry.key]))
        else:
            seen[entry.key] = entry
    return list(seen.values())


def _changed(family: str, entry: Entry, default: Mapping[str, Value]) -> Entry:
    if not transforms.is_transform(entry.value):
        return entry
    sizes = tuple(config_of(family).SIZES)
    value = transforms.apply(entry.value, default[entry.key].value, sizes)
    return Entry(entry.key, value, entry.origin, entry.option, entry.order)


def _typed(
    family: str, entries: Sequence[Entry], values: Mapping[str, Value]
) -> tuple[list[tuple[Entry, Any]], list[Fault]]:
    """The entries with their values as the schema reads them, and a fault for each other one."""
    by_key = {entry.key: entry for entry in entries}
    faults: dict[str, Fault] = {}
    legal = settings_class(family)
    settings = None
    try:
        tree = nested({key: entry.value for key, entry in by_key.items()})
        settings = legal.model_validate(tree, strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = _key_of(detail["loc"], by_key)
            beneath = values[key]
            faults.setdefault(
                key, refusals.bad_value(leaves(family)[key], by_key[key], detail["type"], beneath)
            )
        tree = nested({key: e.value for key, e in by_key.items() if key not in faults})
        settings = legal.model_validate(tree, strict=True)
    for key, entry in by_key.items():
        leaf = leaves(family)[key]
        if kind := refusals.unseen_by_schema(leaf, entry.value):
            faults.setdefault(key, refusals.bad_value(leaf, entry, kind, values[key]))
    read = [
        (entry, _plain(get(settings, key))) for key, entry in by_key.items() if key not in faults
    ]
    return read, list(faults.values())


def _key_of(loc: Sequence[Any], keys: Mapping[str, Any]) -> str:
    """The leaf that a place in the tree belongs to; inside a leaf the rest is left off."""
    parts = [str(part) for part in loc]
    return next(key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in keys)


def _plain(value: Any) -> Any:
    """A value without the schema's classes: a promise as a mapping of mappings."""
    if isinstance(value, dict):
        return {
            key: item if isinstance(item, dict) else item.model_dump(exclude_none=True)
            for key, item in value.items()
        }
    return value
