"""Decides between the layers: from words and files to settings that know where they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import adapt, batching, custom_task, feature_checks, presets, validate
from launcher.config import layers as typed
from launcher.config.custom_task import FOLDER
from launcher.config.layers import merge_layers
from launcher.config.machine import Machine
from launcher.config.provenance import (
    PROFILE_LAYER,
    RESUMED_LAYER,
    Batching,
    CliArgs,
    Entry,
    Layer,
    Origin,
    Resolved,
    Setting,
    file_layer,
)
from launcher.config.resumed_settings import Base, typed_keys
from launcher.config.schema import config_of, settings_class
from launcher.config.selection import FIRST_RUN, Choice, choose, file_of
from models.catalog import is_custom
from training.settings import nested

PRECEDENCE = (
    "built-in",
    "family",
    "first run",
    "size",
    "mode",
    "family mode",
    "size mode",
    "stage",
    "size stage",
    PROFILE_LAYER,
    "engine",
    "machine",
    RESUMED_LAYER,
    "config",
    "command line",
)
"""Lowest first. `machine` replaces only what the program asked for, never a person's word;
"resumed run" holds what a run that goes on had, and the program would not choose by itself."""


def resolve(
    words: CliArgs, machine: Machine, world_size: int | None = None, base: Base | None = None
) -> Resolved:
    """Everything a run is told. Reads settings files.

    `world_size` is given where the processes were started by torchrun or srun; `base` holds the
    settings of the run that goes on. Raises SettingsError with all that is wrong.
    """
    files = typed.read_files(words)
    choice = choose(words, files, base)
    personal, diagnostics = typed.user_layers(words, files, choice.family)
    shipped_layers = in_precedence(_shipped(choice))
    if base is not None:
        beneath, _ = merge_layers(choice.family, shipped_layers)
        keys, is_placed = typed_keys(personal), world_size is not None
        personal = [base.over(beneath, keys, choice.engine, is_placed), *personal]
    values, wrong = merge_layers(choice.family, [*shipped_layers, *personal])
    diagnostics = [*files.diagnostics, *diagnostics, *_told(choice, wrong)]
    _place_own(values)
    pointed = feature_checks.point_data_path(values)
    world = adapt.decide_world(values, machine, world_size, diagnostics)
    notes = [*_first_notes(choice), *pointed]
    adapt.adapt_settings(adapt.Adaptation(values, machine, world, notes, diagnostics))
    notes += _size_notes(choice, values, machine)
    diagnostics += validate.check_settings(values)
    solved = _solved(values, world.size, diagnostics)
    errors = [fault for fault in diagnostics if fault.severity == "error"]
    if errors or solved is None:
        raise SettingsError(_in_order(errors, personal))
    notes += adapt.write_batch_numbers(values, solved)
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
        warnings=_in_order(diagnostics, personal),
    )


def _told(choice: Choice, wrong: Sequence[Diagnostic]) -> list[Diagnostic]:
    """What is wrong with single values; of a task that is not there, only that."""
    known = {fault.key for fault in choice.diagnostics}
    unknown = ("model.", "data.") if custom_task.KEY in known else ()
    others = [f for f in wrong if f.key not in known and not (f.key or "").startswith(unknown)]
    return [*choice.diagnostics, *others]


def _place_own(values: dict[str, Setting]) -> None:
    """Where a task of the person's own was found takes the place of where it was looked for."""
    if FOLDER in values:
        found = custom_task.task_folder(values["model.family"].value)
        values[FOLDER] = replace(values[FOLDER], value=found)


def _solved(
    values: dict[str, Setting], world_size: int, diagnostics: list[Diagnostic]
) -> Batching | None:
    """The tied numbers; None where they, or what they are made of, are at fault."""
    wrong = {fault.key for fault in diagnostics if fault.severity == "error"}
    if wrong & {*batching.TRIO, "engine.nproc", "engine.name"}:
        return None
    try:
        return batching.solve_batching(values, world_size)
    except SettingsError as error:
        diagnostics += error.diagnostics
        return None


def in_precedence(layers: Sequence[Layer]) -> list[Layer]:
    """The layers lowest first; those of one name, such as files, stay as they are."""
    return sorted(layers, key=lambda layer: PRECEDENCE.index(layer.name))


def _shipped(choice: Choice) -> list[Layer]:
    """The layers that come with the program; the built-in one is the schema's own."""
    family = file_of(choice.family)
    blocks: list[tuple[str, presets.Block | None]] = [
        ("family", family.default),
        ("family", family.declared),
        ("size", family.sizes.get(choice.size or "")),
    ]
    if choice.mode is not None:
        blocks += [
            ("mode", presets.mode(choice.mode).block),
            ("family mode", family.modes.get(choice.mode)),
            ("size mode", family.size_modes.get((choice.size or "", choice.mode))),
        ]
    if choice.stage is not None:
        blocks += [
            ("stage", family.stages.get(choice.stage)),
            ("size stage", family.size_stages.get((choice.size or "", choice.stage))),
        ]
    if choice.profile is not None:
        blocks.append((PROFILE_LAYER, presets.profile(choice.profile)))
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


def _in_order(diagnostics: Sequence[Diagnostic], personal: Sequence[Layer]) -> list[Diagnostic]:
    """The faults in the order of what the person wrote, those of nobody's words last."""
    written = {entry.key: entry.order for layer in personal for entry in layer.entries}
    last = (typed.COMMAND_LINE + 1, 0)
    placed = [
        fault if fault.order else replace(fault, order=written.get(fault.key or "", last))
        for fault in diagnostics
    ]
    return sorted(placed, key=lambda fault: fault.order or last)


def _size_notes(choice: Choice, values: Mapping[str, Setting], machine: Machine) -> Iterator[str]:
    """That nobody named the large size that a CPU is about to train, and what is quick there."""
    device = values["device"].value
    on_cpu = (machine.device if device == "auto" else device) == "cpu"
    if not on_cpu or is_custom(choice.family):
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
