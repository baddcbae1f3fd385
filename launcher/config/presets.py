"""The YAML that comes with the program: modes, and what each family makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ds_configs
from launcher.config.nodes import Node, node_value
from launcher.config.settings_file import read_settings_file

FOLDER = Path(ds_configs.__file__).parent


@dataclass(frozen=True)
class Block:
    """Settings of a shipped file that belong together, and the file as a message names it."""

    settings: Node
    place: str


@dataclass(frozen=True)
class Mode:
    """What a mode means where a family says nothing else."""

    name: str
    sentence: str
    promise: Mapping[str, Any]
    block: Block


@dataclass(frozen=True)
class FamilyFile:
    """What a family's file holds: its default, then what sizes and modes change."""

    default: Block
    sizes: Mapping[str, Block]
    modes: Mapping[str, Block]
    size_modes: Mapping[tuple[str, str], Block]
    """By (size, mode)."""
    stages: Mapping[str, Block] = field(default_factory=dict)
    """What each stage changes in mode staged."""
    size_stages: Mapping[tuple[str, str], Block] = field(default_factory=dict)
    """By (size, stage)."""
    declared: Block | None = None
    """What the class of a task of the person's own declares, above the default."""


@cache
def modes() -> tuple[str, ...]:
    """The names of all modes, `default` first."""
    names = sorted(path.stem for path in (FOLDER / "modes").glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: name != "default"))


@cache
def mode(name: str) -> Mode:
    """One mode by its name. Reads the disk."""
    place = f"ds_configs/modes/{name}.yaml"
    found = dict(read_settings_file(FOLDER / "modes" / f"{name}.yaml").value)
    sentence = node_value(found.pop("sentence"))
    promise = found.get("promise", Node({}, 1))
    return Mode(name, sentence, node_value(promise), Block(Node(found, 1), place))


@cache
def profiles() -> tuple[str, ...]:
    """The names of all profiles that change something."""
    return tuple(sorted(path.stem for path in (FOLDER / "profiles").glob("*.yaml")))


@cache
def profile(name: str) -> Block:
    """What `limits.profile: name` says. Reads the disk."""
    found = dict(read_settings_file(FOLDER / "profiles" / f"{name}.yaml").value)
    del found["sentence"]
    return Block(Node(found, 1), f"ds_configs/profiles/{name}.yaml")


@cache
def family(name: str) -> FamilyFile:
    """A family's file. Reads the disk."""
    return _family_file(f"models/{name}.yaml")


@cache
def own() -> FamilyFile:
    """What every task of a person's own begins with. Reads the disk."""
    return _family_file("own.yaml")


def _family_file(path: str) -> FamilyFile:
    place = f"ds_configs/{path}"
    found = read_settings_file(FOLDER / path).value
    within: dict[str, dict[tuple[str, str], Block]] = {"modes": {}, "stages": {}}
    sizes: dict[str, Block] = {}
    for size, node in _blocks(found, "sizes").items():
        own = dict(node.value)
        for kind, blocks in within.items():
            for name, block in _blocks(own, kind).items():
                blocks[size, name] = Block(block, place)
            own.pop(kind, None)
        sizes[size] = Block(Node(own, node.line), place)
    return FamilyFile(
        Block(found["default"], place),
        sizes,
        {key: Block(node, place) for key, node in _blocks(found, "modes").items()},
        within["modes"],
        {key: Block(node, place) for key, node in _blocks(found, "stages").items()},
        within["stages"],
    )


def _blocks(tree: Mapping[str, Node], key: str) -> Mapping[str, Node]:
    blocks: Mapping[str, Node] = tree[key].value if key in tree else {}
    return blocks
