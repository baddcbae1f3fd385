"""What reading the person's words gives: settings, where each came from, what was filled in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launcher.base.diagnostics import Diagnostic
from launcher.config.schema import sections
from launcher.config.settings_file import Node, node_value

ResetPart = Literal["optimizer", "schedule", "data"]
"""State that --reset reinitializes instead of restoring it."""
STAGED_MODE = "staged"
"""The mode that trains stages."""


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a layer's name, and the file and line or the option as typed."""

    layer: str
    """One of launcher.config.resolve.PRECEDENCE; or solved: from the arithmetic of the batch."""
    place: str
    """`mine.yaml:12`, `--engine zero2`, `ds_configs/modes/fast.yaml:4`, `built-in`."""
    how: str = ""
    """What a mode made of the default: `16 × 0.25`."""


@dataclass(frozen=True)
class Setting:
    """A resolved leaf: its value, where from, and what it replaced, newest first."""

    value: Any
    origin: Origin
    replaced: Sequence[tuple[Any, Origin]] = ()


@dataclass(frozen=True)
class ImpliedSetting:
    """A setting that follows from an option which names no setting, such as --from RUN."""

    key: str
    value: Any
    option: str
    place: str
    """The option as typed, or what else it follows from."""


@dataclass(frozen=True)
class CliArgs:
    """What a person typed, before any file is read. `options` are short options as typed."""

    model: str | None = None
    """FAMILY[:SIZE]"""
    mode: str | None = None
    mode_option: str = "--mode"
    """The option as typed, for messages: `--mode` or `--fast`."""
    engine: str | None = None
    configs: Sequence[Path] = ()
    sets: Sequence[str] = ()
    """Each KEY=VALUE as typed."""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Settings key -> (option, text), such as "optim.lr": ("--lr", "1e-3")."""
    resume: str | None = None
    """What to go on from: auto, a folder, or a step."""
    resume_option: str = "--resume"
    """As typed, for messages: `--resume`, or `resume` of the command."""
    reset: Sequence[str] = ()
    """What begins anew all the same, of ResetPart."""
    filled: Sequence[ImpliedSetting] = ()
    """What follows from --stage and --from."""
    weights: str | None = None
    """What was typed behind --from: where the first weights of a stage come from."""


@dataclass(frozen=True)
class Batching:
    """The solved arithmetic: global_batch = micro_batch × accumulation × world_size."""

    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int


@dataclass(frozen=True)
class Resolved:
    """Everything a run is told. `settings` is a frozen pydantic model of settings/schema.py."""

    settings: Any
    values: Mapping[str, Setting]
    """Each leaf by its dotted key."""
    batching: Batching
    nproc: int
    promises: Mapping[str, Any]
    notes: Sequence[str]
    """What was filled in or adapted for this machine, a line each."""
    device: str
    """What `device` comes to on this machine: never auto."""
    warnings: Sequence[Diagnostic] = ()
    """What is legal, and most likely not meant."""


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
