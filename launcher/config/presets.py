"""The YAML that comes with the program: modes, and what each family makes of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import ds_configs
from launcher.base.diagnostics import plain
from launcher.config.settings_file import Node, node_value, read_settings_file

FOLDER = Path(ds_configs.__file__).parent
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b")
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
    """A family's file: its default, and the changes of sizes, modes and stages."""

    default: SettingsBlock
    sizes: Mapping[str, SettingsBlock]
    modes: Mapping[str, SettingsBlock]
    size_modes: Mapping[tuple[str, str], SettingsBlock]
    """By (size, mode)."""
    stages: Mapping[str, SettingsBlock] = field(default_factory=dict)
    """What each stage changes in mode staged."""
    size_stages: Mapping[tuple[str, str], SettingsBlock] = field(default_factory=dict)
    """By (size, stage)."""
    given: Mapping[str, SettingsBlock] = field(default_factory=dict)
    """By the key of a setting: what follows where the user gives it a value."""
    declared: SettingsBlock | None = None
    """The defaults that a custom task's class declares, above `default`."""


@cache
def modes() -> tuple[str, ...]:
    """The names of all modes, `default` first."""
    names = sorted(path.stem for path in (FOLDER / "modes").glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: name != "default"))


@cache
def mode(name: str) -> Mode:
    """One mode by its name. Reads the disk."""
    location = f"ds_configs/modes/{name}.yaml"
    nodes = dict(read_settings_file(FOLDER / "modes" / f"{name}.yaml").value)
    sentence = node_value(nodes.pop("sentence"))
    promise = nodes.get("promise", Node({}, 1))
    return Mode(name, sentence, node_value(promise), SettingsBlock(Node(nodes, 1), location, True))


@cache
def profiles() -> tuple[str, ...]:
    """The names of all profiles that change something."""
    return tuple(sorted(path.stem for path in (FOLDER / "profiles").glob("*.yaml")))


@cache
def profile(name: str) -> SettingsBlock:
    """What `limits.profile: name` says. Reads the disk."""
    nodes = dict(read_settings_file(FOLDER / "profiles" / f"{name}.yaml").value)
    del nodes["sentence"]
    return SettingsBlock(Node(nodes, 1), f"ds_configs/profiles/{name}.yaml", True)


@cache
def family(name: str) -> FamilyFile:
    """A family's file. Reads the disk."""
    return _family_file(f"models/{name}.yaml")


@cache
def custom_task() -> FamilyFile:
    """The defaults of all custom tasks. Reads the disk."""
    return _family_file("custom_task.yaml")


@cache
def task_promises() -> Mapping[str, Node]:
    """By mode and measure, the settings that the mode must change to promise it of a custom task.

    Without any it promises none; other measures are promised of every task. Reads the disk.
    """
    return _blocks(read_settings_file(FOLDER / "custom_task.yaml").value, "promises")


@cache
def original_variables() -> frozenset[str]:
    """Names in capitals of several words in the files of the originals. Reads the disk."""
    texts = (path.read_text("utf-8") for path in (FOLDER / "originals").glob("*.yaml"))
    return frozenset(name for text in texts for name in _VARIABLE.findall(text))


def _family_file(path: str) -> FamilyFile:
    place = f"ds_configs/{path}"
    nodes = read_settings_file(FOLDER / path).value

    def blocks(tree: Mapping[str, Node], key: str) -> dict[str, SettingsBlock]:
        return {name: SettingsBlock(node, place) for name, node in _blocks(tree, key).items()}

    sizes: dict[str, SettingsBlock] = {}
    within: dict[str, dict[tuple[str, str], SettingsBlock]] = {"modes": {}, "stages": {}}
    for size, node in _blocks(nodes, "sizes").items():
        for kind, by_name in within.items():
            by_name |= {(size, name): block for name, block in blocks(node.value, kind).items()}
        plain_nodes = {key: child for key, child in node.value.items() if key not in within}
        sizes[size] = SettingsBlock(Node(plain_nodes, node.line), place)
    return FamilyFile(
        default=SettingsBlock(nodes["default"], place),
        sizes=sizes,
        modes=blocks(nodes, "modes"),
        size_modes=within["modes"],
        stages=blocks(nodes, "stages"),
        size_stages=within["stages"],
        given=blocks(nodes, "given"),
    )


def _blocks(tree: Mapping[str, Node], key: str) -> Mapping[str, Node]:
    blocks: Mapping[str, Node] = tree[key].value if key in tree else {}
    return blocks


_WORDS = {"scale", "at_least", "at_most", "smaller_of"}
BOUNDS = {"at_least": "at least", "at_most": "at most"}
_LENGTH = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?(%|epochs?)$")


def is_change(value: Any) -> bool:
    """Whether a mode's value is a change to the default."""
    return isinstance(value, dict) and bool(value) and set(value) <= _WORDS


def apply_change(change: Mapping[str, Any], default: Any, sizes: Sequence[str]) -> Any:
    """The default after `change`; null stays null.

    Whole numbers are rounded, to 1 at least unless they were 0; `sizes` are the family's, from
    small to large: smaller_of takes the first name that is smaller than the default.
    """
    if default is None:
        return None
    value = default
    if "scale" in change:
        value = _scaled(value, change["scale"])
    if "at_least" in change:
        value = max(value, change["at_least"])
    if "at_most" in change:
        value = min(value, change["at_most"])
    if "smaller_of" in change:
        below = sizes[: sizes.index(value)]
        value = next((name for name in change["smaller_of"] if name in below), value)
    return value


def describe_change(change: Mapping[str, Any], default: Any, value: Any) -> str:
    """How `value` follows from `default`: `3 × 0.5, rounded to 2`."""
    if default is None:
        return "nothing to change"
    texts = []
    if "scale" in change:
        scaled = _scaled(default, change["scale"])
        exact = not isinstance(default, int) or scaled == default * change["scale"]
        shown = f"{plain(default)} × {change['scale']:.6g}"
        texts.append(shown if exact else f"{shown}, rounded to {scaled}")
    texts += [f"{word} {change[key]}" for key, word in BOUNDS.items() if key in change]
    if "smaller_of" in change:
        texts.append(f"smaller than {plain(default)}" if value != default else "no smaller size")
    return ", ".join(texts)


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
