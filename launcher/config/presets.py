"""The YAML that comes with the program: modes, and what each family makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ds_configs
from launcher.base.diagnostics import plain
from launcher.config.settings_file import Node, node_value, read_settings_file

FOLDER = Path(ds_configs.__file__).parent
TASK_FOLDER = "model.folder"
"""The setting with the folder of a custom task's module."""


@dataclass(frozen=True)
class SettingsBlock:
    """Settings of a shipped file that belong together, and the file as a message names it."""

    settings: Node
    place: str
    is_shared: bool = False
    """Of all families: settings of `model` and `data` that a family does not have are ignored."""


@dataclass(frozen=True)
class Mode:
    """What a mode means where a family says nothing else."""

    name: str
    sentence: str
    promise: Mapping[str, Any]
    block: SettingsBlock


@dataclass(frozen=True)
class FamilyFile:
    """A family's file: its default, and what sizes, modes and stages change."""

    default: SettingsBlock
    blocks: Mapping[tuple[str, ...], SettingsBlock]
    """By place in the file: ("modes", MODE), ("sizes", SIZE), ("sizes", SIZE, "modes", MODE); and
    "stages", what each stage changes in mode staged, like "modes"; ("given", KEY): what follows
    where the user gives that setting a value."""
    declared: SettingsBlock | None = None
    """The defaults that a custom task's class declares, above `default`."""

    def of(self, kind: str) -> dict[str, SettingsBlock]:
        """The blocks of sizes, modes, stages or given settings by name."""
        return {path[1]: block for path, block in self.blocks.items() if path[:-1] == (kind,)}


@cache
def modes() -> tuple[str, ...]:
    """The names of all modes, `default` first."""
    names = sorted(path.stem for path in (FOLDER / "modes").glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: name != "default"))


@cache
def mode(name: str) -> Mode:
    """One mode by its name. Reads the disk."""
    sentence, block = _shared(f"modes/{name}.yaml")
    promise = block.settings.value.get("promise", Node({}, 1))
    return Mode(name, sentence, node_value(promise), block)


@cache
def profiles() -> tuple[str, ...]:
    """The names of all profiles that change something."""
    return tuple(sorted(path.stem for path in (FOLDER / "profiles").glob("*.yaml")))


@cache
def profile(name: str) -> SettingsBlock:
    """What `limits.profile: name` says. Reads the disk."""
    return _shared(f"profiles/{name}.yaml")[1]


@cache
def family(name: str) -> FamilyFile:
    """A family's file. Reads the disk."""
    return _family_file(f"models/{name}.yaml")


@cache
def custom_task() -> FamilyFile:
    """The defaults of all custom tasks. Reads the disk."""
    return _family_file("custom_task.yaml")


def _shared(path: str) -> tuple[str, SettingsBlock]:
    """The sentence and the settings of a file for all families."""
    nodes = dict(read_settings_file(FOLDER / path).value)
    sentence = nodes.pop("sentence").value
    return sentence, SettingsBlock(Node(nodes, 1), f"ds_configs/{path}", True)


def _family_file(file: str) -> FamilyFile:
    place, nodes = f"ds_configs/{file}", read_settings_file(FOLDER / file).value
    blocks: dict[tuple[str, ...], SettingsBlock] = {}

    def add(kind: str, node: Node | None, *above: str) -> None:
        for name, child in node.value.items() if node is not None else ():
            tree = dict(child.value)
            if kind == "sizes":  # which change modes and stages too
                for inner in ("modes", "stages"):
                    add(inner, tree.pop(inner, None), kind, name)
            path = (*above, kind, name)
            blocks[path] = SettingsBlock(Node(tree, child.line), place)

    for kind in ("sizes", "modes", "stages", "given"):
        add(kind, nodes.get(kind))
    return FamilyFile(SettingsBlock(nodes["default"], place), blocks)


_WORDS = {"scale", "at_least", "at_most", "smaller_of"}
BOUNDS = {"at_least": "at least", "at_most": "at most"}
_LENGTH = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?(%|epochs?)$")


def is_change(value: Any) -> bool:
    """Whether a mode's value is a change to the default."""
    return isinstance(value, dict) and bool(value) and set(value) <= _WORDS


def apply_change(change: Mapping[str, Any], default: Any, sizes: Sequence[str]) -> tuple[Any, str]:
    """The default after `change`, and how it follows: `3 × 0.5, rounded to 2`; null stays null.

    Whole numbers are rounded, to 1 at least unless they were 0; `sizes` are the family's, from
    small to large: smaller_of takes the first name that is smaller than the default.
    """
    if default is None:
        return None, "nothing to change"
    value, texts = default, []
    if (factor := change.get("scale")) is not None:
        value = _scaled(default, factor)
        is_exact = not isinstance(default, int) or value == default * factor
        text = f"{plain(default)} × {factor:.6g}"
        texts.append(text if is_exact else f"{text}, rounded to {value}")
    for word, bound in (("at_least", max), ("at_most", min)):
        if word in change:
            value = bound(value, change[word])
            texts.append(f"{BOUNDS[word]} {change[word]}")
    if "smaller_of" in change:
        below = sizes[: sizes.index(value)]
        value = next((name for name in change["smaller_of"] if name in below), value)
        texts.append(f"smaller than {plain(default)}" if value != default else "no smaller size")
    return value, ", ".join(texts)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, int):
        return max(1, math.floor(value * factor + 0.5)) if value else 0
    if isinstance(value, float):
        return float(f"{value * factor:.12g}")  # 0.1 × 0.75 is 0.075, not 0.07500000000000001
    match = _LENGTH.match(value)
    if match is None:
        raise TypeError(f"{value!r} cannot be scaled")
    number = f"{float(match[1]) * factor:g}"
    if match[2] == "%":
        return f"{number}%"
    return f"{number} epoch" if number == "1" else f"{number} epochs"
