"""Decides between the layers: from words and files to settings that know where they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.catalog import ENGINES
from launcher.files.nodes import plain
from launcher.going_on.resumed_settings import Base, typed_keys
from launcher.machine import Machine
from launcher.messages import Fault, SettingsError
from launcher.settings import (
    batching,
    checks,
    fitting,
    own_config,
    own_task,
    refusals,
    shipped,
    transforms,
)
from launcher.settings import words as typed
from launcher.settings.entries import RESUMED, Entry, Layer, file_layer, find
from launcher.settings.layers import merge
from launcher.settings.own_task import FOLDER
from launcher.settings.resolved import Batching, Origin, Resolved, Value, Words
from launcher.settings.schema import config_of, nested, settings_class
from models.catalog import FAMILIES, is_own

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

_MAY_MOVE = ("engine.name", FOLDER)
"""Choices in which a run that goes on follows what is typed now."""
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
    faults: Sequence[Fault] = ()
    """Of a task of the person's own that cannot be used; another family stands in its place."""


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
    faults = [*files.faults, *faults, *_told(choice, wrong)]
    _place_own(values)
    world = fitting.place_world(values, machine, world_size, faults)
    notes = _first_notes(choice)
    fitting.fit(fitting.Bench(values, machine, world, notes, faults))
    notes += _size_notes(choice, values, machine)
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


def _told(choice: Choice, wrong: Sequence[Fault]) -> list[Fault]:
    """What is wrong with single values; of a task that is not there, only that."""
    known = {fault.key for fault in choice.faults}
    unknown = ("model.", "data.") if own_task.KEY in known else ()
    others = [f for f in wrong if f.key not in known and not (f.key or "").startswith(unknown)]
    return [*choice.faults, *others]


def _place_own(values: dict[str, Value]) -> None:
    """Where a task of the person's own was found takes the place of where it was looked for."""
    if FOLDER in values:
        found = own_task.folder_of(values["model.family"].value)
        values[FOLDER] = replace(values[FOLDER], value=found)


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
        said = {**had, **said, **{key: had[key] for key in had if key not in _MAY_MOVE}}
    named = "model.family" in said or "model.size" in said
    family, faults = _family(said)
    mode = _one_of(said.get("mode"), shipped.modes(), "default")
    sizes = tuple(config_of(family).SIZES)
    size = _one_of(said.get("model.size"), sizes, None)
    if "model.size" not in said and sizes:
        size = _default_size(family, mode, sizes, named)
    engine = _one_of(said.get("engine.name"), ENGINES, None)
    return Choice(family, size, mode, engine, named, faults)


def _family(said: Mapping[str, Entry]) -> tuple[str, list[Fault]]:
    """The model that was named, and what is wrong with it where it is a task of one's own."""
    entry = said.get("model.family")
    if entry is None or not isinstance(entry.value, str) or not is_own(entry.value):
        return _one_of(entry, FAMILIES, FIRST_RUN[0]) or FIRST_RUN[0], []
    own_task.search(said[FOLDER].value if FOLDER in said else None)
    try:
        sizes = own_config.config(entry.value).SIZES
        own_config.family_file(entry.value)
    except SettingsError as error:
        found = refusals.of_own_task(error, entry.origin)
        return FIRST_RUN[0], [replace(fault, order=entry.order) for fault in found]
    return entry.value, list(_of_own(entry.value, bool(sizes), said))


def _of_own(name: str, has_sizes: bool, said: Mapping[str, Entry]) -> Iterator[Fault]:
    """What is wrong with the size and the folder of a task that is there."""
    size, folder = said.get("model.size"), said.get(FOLDER)
    if size is not None and not has_sizes:
        what = f"{name} has no sizes, and size {size.value!r} is asked for"
        said_at = refusals.place("model.size", size.origin)
        yield Fault(what, key="model.size", place=said_at, order=size.order)
    place = None if folder is None else folder.value
    if folder is not None and isinstance(place, str) and own_task.is_another(name, place):
        yield Fault(
            f"{name} of {place} cannot be used: this process has imported another one",
            key=FOLDER,
            value=place,
            place=refusals.place(FOLDER, folder.origin),
            legal=f"{own_task.folder_of(name)}, or a process of its own",
            order=folder.order,
        )


def _file_of(family: str) -> shipped.FamilyFile:
    return own_config.family_file(family) if is_own(family) else shipped.family(family)


def _default_size(family: str, mode: str | None, sizes: Sequence[str], named: bool) -> str:
    file = _file_of(family)
    default = find((file.declared or file.default).settings, "model.size")
    size: str = FIRST_RUN[1]
    if named:
        size = default.value if default is not None and default.value in sizes else sizes[0]
    blocks = [shipped.mode(mode).block] if mode else []
    blocks += [b for m, b in file.modes.items() if m == mode]
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
    family = _file_of(choice.family)
    blocks: list[tuple[str, shipped.Block | None]] = [
        ("family", family.default),
        ("family", family.declared),
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


def _size_notes(choice: Choice, values: Mapping[str, Value], machine: Machine) -> Iterator[str]:
    """That nobody named the large size that a CPU is about to train, and what is quick there."""
    device = values["device"].value
    on_cpu = (machine.device if device == "auto" else device) == "cpu"
    if not on_cpu or is_own(choice.family):
        return
    size, smallest = values["model.size"], next(iter(config_of(choice.family).SIZES))
    if size.origin.layer == "family" and size.value != smallest:
        yield (
            f"no size named: {size.value}, which takes long on a CPU; quick is  "
            f"--model {choice.family}:{smallest}"
        )


def _first_notes(choice: Choice) -> list[str]:
    if choice.model_named:
        return []
    changed = f"; mode {choice.mode} makes it {choice.size}" if choice.size != FIRST_RUN[1] else ""
    return [f"no model named: {':'.join(FIRST_RUN)}, the first-run size{changed}"]
