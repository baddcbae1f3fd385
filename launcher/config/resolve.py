"""Resolves settings: reads what the user typed, chooses, stacks the layers, adapts and checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import SettingsError
from launcher.config import adapt, batching, check, paths, presets
from launcher.config.layers import is_of_mode, scoped, stack_layers
from launcher.config.machine import Machine
from launcher.config.provenance import (
    BATCH_SETTINGS,
    DEFAULT_MODE,
    FAMILY_LAYER,
    Chosen,
    CliArgs,
    Resolved,
    Values,
)
from launcher.config.schema import FIRST_RUN, PRETRAINED, config_of, is_of_hub, settings_class
from launcher.config.selection import COMMAND_LINE, Choice, choose
from models.catalog import is_custom
from models.common.hub import HUB
from training.settings import nested

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base

_LAST = (COMMAND_LINE + 1, 0)


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
    choice = choose(args, base)
    if chosen is not None:
        choice = replace(choice, engine=chosen.engine)
    values, entries, diagnostics = stack_layers(choice, base, world_size is not None)
    paths.keep_recorded(values)
    pinned: list[str] = []
    name = values[PRETRAINED].value if PRETRAINED in values else None
    if isinstance(name, str) and name.startswith(HUB) and not is_custom(choice.family):
        from launcher.config import hub  # for the runs that name one

        try:
            pinned = hub.pin(values)
        except SettingsError as error:
            diagnostics += error.diagnostics
    run = adapt.adapt(values, machine, world_size, chosen)
    values["promise"], unpromised = scoped(values, choice, run.device)
    diagnostics += [*run.diagnostics, *check.check_settings(values)]
    solved, wrong = None, {d.key for d in diagnostics if d.severity == "error"}
    if wrong.isdisjoint((*BATCH_SETTINGS, "engine.nproc", "engine.name")):
        try:
            solved = batching.solve_batching(values, run.size)
        except SettingsError as error:
            diagnostics += error.diagnostics
    # In the order of the user's settings; those of other layers last.
    orders = {entry.key: entry.order for entry in entries}
    diagnostics = [d if d.order else replace(d, order=orders.get(d.key or "", _LAST)) for d in diagnostics]
    diagnostics.sort(key=lambda diagnostic: diagnostic.order or _LAST)
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    if errors or solved is None:
        raise SettingsError(errors)
    notes = [*_model_notes(choice, values, machine), *pinned, *run.notes, *adapt.batch_notes(values, solved)]
    tree = nested({key: setting.value for key, setting in values.items()})
    return Resolved(
        settings=settings_class(choice.family).model_validate(tree, strict=True),
        values=values,
        world_size=run.size,
        nproc=run.nproc,
        promises={k: bounds for k, bounds in values["promise"].value.items() if bounds},
        unpromised=unpromised,
        notes=notes,
        device=run.device,
        warnings=diagnostics,
        chosen=chosen,
    ).with_batching(solved, str(solved))


def fetch_weights(model: Any) -> None:
    """Download the weights of a model of the hub in the section `model`, if the cache lacks them.

    Touches network and disk. Raises SettingsError.
    """
    if is_of_hub(model):
        from launcher.config import hub  # for the runs that name one

        hub.fetch(model.pretrained, weights=True)


def _model_notes(choice: Choice, values: Values, machine: Machine) -> Iterator[str]:
    """Announce the model of a first run, and a default size that is slow here or a mode leaves."""
    lines = presets.mode(choice.mode or DEFAULT_MODE).lines
    change = next((line.value for line in lines if line.key == "model.size"), None)
    size, device = values.get("model.size"), values["device"].value
    on_cpu = (machine.device if device == "auto" else device) == "cpu"
    if choice.size is None:
        size = None
    if not choice.model_named:
        is_changed = choice.size != FIRST_RUN[1]
        changed = f"; mode {choice.mode} makes it {choice.size}" if is_changed else ""
        yield f"no model named: {':'.join(FIRST_RUN)}, the default of a first run{changed}"
    elif on_cpu and size is not None and not is_custom(choice.family):
        smallest = next(iter(config_of(choice.family).SIZES))
        if size.origin.layer == FAMILY_LAYER and size.value != smallest:
            quick = f"--model {choice.family}:{smallest}"
            yield f"no size named: {size.value}, which is slow on a CPU; a quick size is  {quick}"
    if change and (size is None or not (size.is_of_user or is_of_mode(size))):
        names = " or ".join(change["smaller_of"])
        yield f"mode {choice.mode}: no smaller size ({names}), so the whole model is trained"
