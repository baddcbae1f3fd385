"""Resolves settings: reads what the user typed, chooses, stacks the layers, adapts and checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from launcher.base import environment
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import adapt, batching, check, parse, paths, presets
from launcher.config.layers import stack_layers
from launcher.config.machine import Machine
from launcher.config.parse import COMMAND_LINE
from launcher.config.provenance import (
    BATCH_SETTINGS,
    FAMILY_LAYER,
    Batching,
    Chosen,
    CliArgs,
    Layer,
    Resolved,
    Setting,
    with_batch_numbers,
)
from launcher.config.schema import FIRST_RUN, config_of, settings_class
from launcher.config.selection import Choice, choose_from
from models.catalog import is_custom
from training.settings import nested

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base


def resolve(
    args: CliArgs,
    machine: Machine,
    world_size: int | None = None,
    base: Base | None = None,
    chosen: Chosen | None = None,
) -> Resolved:
    """The settings of a run. Reads settings files.

    `world_size` is given if torchrun or srun started the processes; `base` holds the settings of
    the resumed run; `chosen` is what engine auto chose. Raises SettingsError with all errors.
    """
    user = parse.read(args)
    choice = choose_from(user, base)
    if chosen is not None:
        choice = replace(choice, engine=chosen.engine)
    values, users, diagnostics = stack_layers(choice, user, base, world_size is not None)
    paths.keep_recorded(values)
    adaptation = adapt.adapt(values, machine, world_size, chosen)
    diagnostics += adaptation.diagnostics
    diagnostics += check.check_settings(values)
    diagnostics += _ignored_variables(choice, values)
    solved = _solve_batching(values, adaptation.world.size, diagnostics)
    diagnostics = _in_order(diagnostics, users)
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    if errors or solved is None:
        raise SettingsError(errors)
    notes = [*_model_notes(choice), *adaptation.notes, *_size_notes(choice, values, machine)]
    notes += adapt.batch_notes(values, solved)
    values = with_batch_numbers(values, solved, str(solved))
    tree = nested({key: setting.value for key, setting in values.items()})
    return Resolved(
        settings=settings_class(choice.family).model_validate(tree, strict=True),
        values=values,
        world_size=adaptation.world.size,
        nproc=adaptation.world.nproc,
        promises=values["promise"].value,
        notes=notes,
        device=adaptation.world.device,
        warnings=diagnostics,
        chosen=chosen,
    )


def _solve_batching(
    values: dict[str, Setting], world_size: int, diagnostics: list[Diagnostic]
) -> Batching | None:
    """The batch numbers; None if they, or what they depend on, are invalid."""
    invalid = {diagnostic.key for diagnostic in diagnostics if diagnostic.severity == "error"}
    if invalid & {*BATCH_SETTINGS, "engine.nproc", "engine.name"}:
        return None
    try:
        return batching.solve_batching(values, world_size)
    except SettingsError as error:
        diagnostics += error.diagnostics
        return None


def _in_order(diagnostics: Sequence[Diagnostic], users: Sequence[Layer]) -> list[Diagnostic]:
    """Diagnostics in the order of the user's settings, those of other layers last."""
    written = {entry.key: entry.order for layer in users for entry in layer.entries}
    last = (COMMAND_LINE + 1, 0)
    placed = [
        diagnostic
        if diagnostic.order
        else replace(diagnostic, order=written.get(diagnostic.key or "", last))
        for diagnostic in diagnostics
    ]
    return sorted(placed, key=lambda diagnostic: diagnostic.order or last)


def _size_notes(choice: Choice, values: Mapping[str, Setting], machine: Machine) -> Iterator[str]:
    """Announce a large default size that is about to train on a CPU."""
    device = values["device"].value
    on_cpu = (machine.device if device == "auto" else device) == "cpu"
    if not on_cpu or not choice.model_named or choice.size is None or is_custom(choice.family):
        return
    size, smallest = values["model.size"], next(iter(config_of(choice.family).SIZES))
    if size.origin.layer == FAMILY_LAYER and size.value != smallest:
        yield (
            f"no size named: {size.value}, which is slow on a CPU; a quick size is  "
            f"--model {choice.family}:{smallest}"
        )


def _model_notes(choice: Choice) -> list[str]:
    if choice.model_named:
        return []
    changed = f"; mode {choice.mode} makes it {choice.size}" if choice.size != FIRST_RUN[1] else ""
    return [f"no model named: {':'.join(FIRST_RUN)}, the default of a first run{changed}"]


def _ignored_variables(choice: Choice, values: Mapping[str, Setting]) -> list[Diagnostic]:
    """Warnings for variables of the environment that only an original reads."""
    variables = environment.variables()
    if presets.original_variables().isdisjoint(variables):
        return []
    from launcher.config import foreign_words  # takes time, and most environments have none

    family = choice.family if choice.model_named else None
    return list(foreign_words.ignored_variables(family, values, variables))
