"""What was written: values with their keys and places, source by source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.config.leaves import sections
from launcher.config.nodes import Node, node_value
from launcher.config.resolved import Origin

RESUMED_LAYER = "resumed run"
"""The layer of the settings that a run which goes on had before."""
USER_LAYERS = (RESUMED_LAYER, "config", "command line")
"""The layers that a person writes, or wrote then; all others come with the program."""
MODE_LAYERS = ("mode", "family mode", "size mode", "stage", "size stage")
"""The layers that may change a default in the place of setting a value."""
PROFILE_LAYER = "profile"
"""The layer of `limits.profile`, which may change what stands below it, the mode's values too."""


@dataclass(frozen=True)
class Entry:
    """One value as it was written."""

    key: str
    value: Any
    origin: Origin
    option: str | None = None
    """The option that carried it; None: a file."""
    order: tuple[int, int] = (0, 0)
    text: str | None = None
    """The value as it was typed, where that is one word."""
    node: Node | None = None
    """The value with its lines, where it stands in a file."""


@dataclass(frozen=True)
class Layer:
    """Values of one source."""

    name: str
    entries: Sequence[Entry]


def file_layer(name: str, root: Node, place: str, family: str, rank: int) -> Layer:
    """The layer that a mapping of a file makes; `place` is the file as messages name it."""
    entries = [
        Entry(
            key,
            node_value(node),
            Origin(name, f"{place}:{node.line}"),
            order=(rank, node.line),
            text=node.text,
            node=node,
        )
        for key, node in flatten(root, sections(family))
    ]
    return Layer(name, entries)


def typed_list(text: str) -> list[str]:
    """The items of a list of texts that is typed without brackets."""
    return [word.strip() for word in text.split(",")]


def flatten(node: Node, known: frozenset[str], prefix: str = "") -> Iterator[tuple[str, Node]]:
    """The dotted keys of a tree; descends where a key is one of the `known` sections."""
    for name, child in node.value.items():
        key = prefix + name
        if key in known and isinstance(child.value, dict):
            yield from flatten(child, known, f"{key}.")
        elif key in known and child.value is None:
            continue  # a section with nothing in it
        else:
            yield key, child


def find_node(root: Node, key: str) -> Node | None:
    """The value of a dotted key in a tree whose sections may be nested or dotted."""
    if key in root.value:
        found: Node = root.value[key]
        return found
    for at in (at for at, letter in enumerate(key) if letter == "."):
        section = root.value.get(key[:at])
        if section is not None and isinstance(section.value, dict):
            return find_node(section, key[at + 1 :])
    return None
