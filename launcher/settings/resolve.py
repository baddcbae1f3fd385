"""Decides between the layers: from words and files to settings that know where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.catalog import ENGINES
from launcher.files.nodes import plain
from launcher.going_on.resumed_settings import Base, typed_keys
from launcher.machine import Machine
from launcher.messages import Fault, SettingsError
from launcher.settings import batching, checks, fitting, shipped, transforms
from launcher.settings import words as typed
from launcher.settings.entries import RESUMED, Entry, Layer, file_layer, find
from launcher.settings.layers import merge
from launcher.settings.resolved import Batching, Origin, Resolved, Value, Words
from launcher.settings.schema import config_of, nested, settings_class
from models.catalog import FAMILIES

PRECEDENCE = (
    "built-in",
    "family",
    "first run",
    "size",
    "mode",
    "family mode",
    "size mode",
    "engine",
    "machine",
    RESUMED,
    "config",
    "command line",
)
"""Lowest first. `machine` replaces only what the program asked for, never a person's word;
"resumed run" holds what a run that goes on had, and the program would not choose by itself."""

FIRST_RUN = ("language", "small")
"""The family and size of a run for which no model was named."""


@dataclass(frozen=True)
class Choice:
    """What decides which layers there are; faulty choices stand as None."""

    family: str
    size: str | None
    mode: str | None
    engine: str | None
    model_named: bool


def resolve(
    words: Words, machine: Machine, world_size: int | None = None, base: Base | None = None
) -> Resolved:
    """Everything a run is told. Reads settings files.

    `world_size` is given where the processes were started by torchrun or srun; `base` holds the
    settings of the run that goes on. Raises SettingsError with all that is wrong.
    """
    files = typed.read_files(words)
    choice = choose(words, files, base)
    personal, faults = typed.layers(words, files, choice.family)
    shipped_layers = in_precedence(_shipped(choice))
    if base is not None:
        beneath, _ = merge(choice.family, shipped_layers)
        keys, is_placed = typed_keys(personal), world_size is not None
        personal = [base.over(beneath, keys, choice.engine, is_placed), *personal]
    values, wrong = merge(choice.family, [*shipped_layers, *personal])
    faults = [*files.faults, *faults, *wrong]
    world = fitting.place_world(values, machine, world_size, faults)
    notes = _first_notes(choice)
    fitting.fit(fitting.Bench(values, machine, world, notes, faults))
    faults += checks.contradictions(values)
    solved = _solved(values, world.size, faults)
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors or solved is None:
        raise SettingsError(_in_order(errors, personal))
    notes += fitting.write_batching(values, solved)
    settings = settings_class(choice.family).model_validate(
        nested({key: value.value for key, value in values.items()}), strict=True
    )
    return Resolved(
        settings=settings,
        values=values,
        batching=solved,
        nproc=world.nproc,
        promises=values["promise"].value,
        notes=notes,
        device=world.device,
        warnings=_in_order(faults, personal),
    )


def _solved(values: dict[str, Value], world_size: int, faults: list[Fault]) -> Batching | None:
    """The tied numbers; None where they, or what they are made of, are at fault."""
    wrong = {fault.key for fault in faults if fault.severity == "error"}
    if wrong & {*batching.TRIO, "engine.nproc", "engine.name"}:
        return None
    try:
        return batching.solve(values, world_size)
    except SettingsError as error:
        faults += error.faults
        return None


def in_precedence(layers: Sequence[Layer]) -> list[Layer]:
    """The layers lowest first; those of one name, such as files, stay as they are."""
    return sorted(layers, key=lambda layer: PRECEDENCE.index(layer.name))


def choose(words: Words, files: typed.Files, base: Base | None = None) -> Choice:
    """The family, size, mode and engine, each from the highest layer that names one.

    What goes on keeps family, size and mode of its `base`: another one that is typed is refused
    later, beside all else that differs.
    """
    said = typed.chosen(words, files)
    if base is not None:
        had = {key: entry for key in typed.CHOICES if (entry := base.chosen(key)) is not None}
        said = {**had, **said, **{key: had[key] for key in had if key != "engine.name"}}
    named = "model.family" in said or "model.size" in said
    family = _one_of(said.get("model.family"), FAMILIES, FIRST_RUN[0]) or FIRST_RUN[0]
    mode = _one_of(said.get("mode"), shipped.modes(), "default")
    sizes = tuple(config_of(family).SIZES)
    size = _one_of(said.get("model.size"), sizes, None)
    if "model.size" not in said:
        size = _default_size(family, mode, sizes, named)
    return Choice(family, size, mode, _one_of(said.get("engine.name"), ENGINES, None), named)


def _default_size(family: str, mode: str | None, sizes: Sequence[str], named: bool) -> str:
    default = find(shipped.family(family).default.settings, "model.size")
    size: str = FIRST_RUN[1] if not named or default is None else default.value
    blocks = [shipped.mode(mode).block] if mode else []
    blocks += [b for m, b in shipped.family(family).modes.items() if m == mode]
    changed = size
    for block in blocks:
        if (node := find(block.settings, "model.size")) is not None:
            change = plain(node)
            is_change = transforms.is_transform(change)
            changed = transforms.apply(change, size, sizes) if is_change else change
    return changed


def _one_of(entry: Entry | None, options: Any, default: str | None) -> str | None:
    if entry is None:
        return default
    return entry.value if isinstance(entry.value, str) and entry.value in options else None


def _shipped(choice: Choice) -> list[Layer]:
    """The layers that come with the program; the built-in one is the schema's own."""
    family = shipped.family(choice.family)
    blocks: list[tuple[str, shipped.Block | None]] = [
        ("family", family.default),
        ("size", family.sizes.get(choice.size or "")),
    ]
    if choice.mode is not None:
        blocks += [
            ("mode", shipped.mode(choice.mode).block),
            ("family mode", family.modes.get(choice.mode)),
            ("size mode", family.size_modes.get((choice.size or "", choice.mode))),
        ]
    found = [
        file_layer(name, block.settings, block.place, choice.family, -1)
        for name, block in blocks
        if block is not None
    ]
    if not choice.model_named:
        origin = Origin("first run", "no model named")
        found.append(Layer("first run", [Entry("model.size", FIRST_RUN[1], origin)]))
    if choice.engine is not None:
        found.append(_engine_layer(choice.engine))
    return found


def _engine_layer(name: str) -> Layer:
    origin = Origin("engine", f"engine {name}")
    settings: Mapping[str, Any] = ENGINES[name].settings
    return Layer("engine", [Entry(key, value, origin) for key, value in settings.items()])


def _in_order(faults: Sequence[Fault], personal: Sequence[Layer]) -> list[Fault]:
    """The faults in the order of what the person wrote, those of nobody's words last."""
    written = {entry.key: entry.order for layer in personal for entry in layer.entries}
    last = (typed.COMMAND_LINE + 1, 0)
    placed = [
        fault if fault.order else replace(fault, order=written.get(fault.key or "", last))
        for fault in faults
    ]
    return sorted(placed, key=lambda fault: fault.order or last)


def _first_notes(choice: Choice) -> list[str]:
    if choice.model_named:
        return []
    changed = f"; mode {choice.mode} makes it {choice.size}" if choice.size != FIRST_RUN[1] else ""
    return [f"no model named: {':'.join(FIRST_RUN)}, the first-run size{changed}"]
