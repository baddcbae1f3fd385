"""Resolves settings: stacks the chosen layers, adapts them to the machine and checks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError
from gearshift.launcher.config import adapt, batching, check, paths
from gearshift.launcher.config.batching import MICRO
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
    CLI_LAYER,
    COMMAND_LINE,
    FAMILY_LAYER,
    MODE_LAYER,
    Chosen,
    CliArgs,
    KeySets,
    Resolved,
    Setting,
    Values,
    hub_names,
)
from gearshift.launcher.config.schema import DATA_PATH, PRETRAINED, config_of, setting_infos
from gearshift.launcher.config.selection import (
    PROMISE,
    Choice,
    built_in,
    choose,
    highest,
    shipped_layers,
    stack,
)

if TYPE_CHECKING:
    from gearshift.launcher.config.resumed_settings import Base

_SIZE = "model.size"


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
    values, diagnostics = _layered(choice, base, world_size is not None)
    keys = KeySets.of(values)

    # What the machine and the files on it change.
    understood: list[str] = []
    if any(values[key].value is not None for key in (PRETRAINED, "model.start") if key in values):
        from gearshift.launcher.config import named_model  # for the runs that name weights

        named_model.name_pretrained(values)
        understood += named_model.meaning(values)
    if base is not None:
        paths.keep_recorded(values, base.settings)
    run = adapt.adapt(values, keys, machine, world_size, chosen)
    size = _default_size(choice, values, keys)
    promises, unpromised = _scoped(values[PROMISE], size)

    diagnostics += run.diagnostics
    diagnostics += check.check_settings(values, keys, is_launched=world_size is not None)
    solved = None
    wrong = {diagnostic.key for diagnostic in diagnostics if diagnostic.severity == "error"}
    if wrong.isdisjoint((*BATCH_SETTINGS, "engine.nproc", "engine.name")):
        try:
            solved = batching.solve_batching(values, keys, run.size)
        except SettingsError as error:
            diagnostics += error.diagnostics
    # In the order of the user's settings; those of other layers last.
    diagnostics.sort(key=lambda diagnostic: diagnostic.order or (COMMAND_LINE + 1, 0))
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    if errors or solved is None:
        raise SettingsError(errors)

    notes = [*understood, *_notes_of_model(choice, values, run.device), *run.notes]
    resolved = Resolved(
        values=values,
        keys=keys,
        world_size=run.size,
        nproc=run.nproc,
        promises=promises,
        notes=notes,
        device=run.device,
        warnings=diagnostics,
        chosen=chosen,
        unpromised=unpromised,
    )
    micro = values[MICRO]
    is_set = MICRO in keys.user or micro.origin.layer == MODE_LAYER
    if is_set and micro.value not in (None, solved.micro_batch):
        notes.append(f"{MICRO}: {solved.micro_batch} instead of {micro.value}: {solved}")
    resolved = resolved.with_batching(solved, str(solved))
    try:
        resolved.settings  # noqa: B018
    except ValidationError as error:  # a custom task rejects several settings together
        from gearshift.launcher.config.errors import about

        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        diagnostic = about(values, "model.family", f"{key}: {first['msg']}", key=key)
        raise SettingsError([diagnostic]) from None
    return resolved


def _layered(
    choice: Choice, base: Base | None, is_placed: bool
) -> tuple[dict[str, Setting], list[Diagnostic]]:
    """The settings of all layers that were chosen, lowest first, and the errors in them."""
    family = choice.family
    values = built_in(family)
    invalid = stack(family, values, shipped_layers(choice))
    users = [*choice.users[1:]]
    if base is not None:
        users.insert(0, base.over(values, {*highest(users)}, choice.engine, is_placed))
    invalid += stack(family, values, users)
    if TASK_FOLDER in values:  # where a custom task was found, instead of where it was searched
        folder = setting_infos(family)[TASK_FOLDER].default
        values[TASK_FOLDER] = replace(values[TASK_FOLDER], value=folder)
    if choice.diagnostics:  # without the task its settings are unknown
        invalid = [d for d in invalid if not str(d.key).startswith(("model.", "data."))]
    return values, [*choice.invalid, *choice.diagnostics, *invalid]


def fetch_weights(values: Values) -> None:
    """Download the weights of a model of the hub that `values` name, if the cache lacks them.

    Touches network and disk. Raises SettingsError.
    """
    if hub_names(values, PRETRAINED):
        from gearshift.launcher.config import hub  # for the runs that name one

        hub.fetch(values[PRETRAINED].value, weights=True)


def fetch_data(values: Values, *, may_download: bool = True) -> None:
    """Download the files of a data set of the hub in data.path, if the cache lacks them.

    They must be there without `may_download`, or if the command line does not ask for a download.
    Touches network and disk. Raises SettingsError.
    """
    for name in hub_names(values, DATA_PATH):
        from gearshift.launcher.config import errors, hub_data  # for the runs that name one

        try:
            hub_data.fetch(name, may_download=may_download and hub_data.is_asked(values))
        except SettingsError as error:
            raise SettingsError([*errors.of_value(values, DATA_PATH, error, name)]) from None


# For the reader: what was chosen, and what is promised.


def _notes_of_model(choice: Choice, values: Values, device: str) -> Iterator[str]:
    """What was chosen for a user who named no model or size."""
    size = values.get(_SIZE)
    if size is None or choice.size is None:  # a pretrained model has its own
        return
    family = choice.family
    smallest = next(iter(config_of(family).SIZES))
    if not choice.model_named:
        yield f"no model named: {family}:{size.value}, the default of a first run"
    elif size.origin.layer == FAMILY_LAYER and device == "cpu" and size.value != smallest:
        quick = f"slow on a CPU; a quick size is  --model {family}:{smallest}"
        yield f"no size named: {size.value}, {quick}"


def _default_size(choice: Choice, values: Values, keys: KeySets) -> str | None:
    """The size that mode default would train: without one of the user instead of the mode's."""
    size = values.get(_SIZE)
    if choice.size is None or size is None:
        return None
    if _SIZE not in keys.changed:
        return str(size.value)
    # A file may repeat the size of the mode, as the settings.yaml of a run does.
    is_users = _SIZE in keys.decided or size.origin.layer == CLI_LAYER
    return None if is_users else str(keys.defaults[_SIZE])


def _scoped(setting: Setting, size: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The promises that a run is given, and by measure why not the others.

    Of the layers that promise a measure the highest one counts whose scope has the run. A promise
    of a GPU stays on a CPU, where a comparison plans it.
    """
    promises: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for layer, origin in setting.all_values:
        for measure, bounds in layer.items():
            sizes = bounds and bounds.get("sizes")
            if measure in promises:
                continue
            if bounds is None:
                promises[measure] = None
                reasons.setdefault(measure, f"withdrawn by {origin.where}")
            elif sizes is not None and size not in sizes:
                reason = f"at size {' or '.join(sizes)}, not {size or 'one of your own'}"
                reasons.setdefault(measure, reason)
            else:
                promises[measure] = bounds
    return {measure: bounds for measure, bounds in promises.items() if bounds}, reasons
