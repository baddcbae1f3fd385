"""Resolves settings: merges the layers, adapts to the machine, solves the batch numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.catalog import ENGINES
from launcher.base import environment
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import (
    adapt,
    batching,
    custom_task,
    feature_checks,
    paths,
    presets,
    validate,
)
from launcher.config.custom_task import FOLDER
from launcher.config.layers import COMMAND_LINE, merge_layers, mode_file_layer, user_layers
from launcher.config.machine import Machine
from launcher.config.options import typed_line
from launcher.config.originals import words_of
from launcher.config.provenance import (
    BATCH_SETTINGS,
    ENGINE_LAYER,
    FAMILY_LAYER,
    LAYERS,
    MODE_LAYER,
    PROFILE_LAYER,
    Batching,
    Chosen,
    CliArgs,
    Entry,
    Layer,
    Origin,
    Resolved,
    Setting,
    file_layer,
    is_set_by_user,
    mode_default_value,
    overridden,
    shipped_value,
    with_batch_numbers,
)
from launcher.config.resumed_settings import Base, typed_keys
from launcher.config.schema import config_of, settings_class
from launcher.config.selection import FIRST_RUN, Choice, choose, file_of
from launcher.config.settings_file import node_value
from models.catalog import is_custom
from training.settings import nested


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
    users, diagnostics = user_layers(args, choice.family)
    of_mode, wrong = mode_file_layer(args, choice.family)
    diagnostics += wrong
    shipped = in_order_of_layers([*_shipped_layers(choice), *of_mode])
    if base is not None:
        below, _ = merge_layers(choice.family, shipped)
        keys, is_placed = typed_keys(users), world_size is not None
        users = [base.over(below, keys, choice.engine, is_placed), *users]
    values, invalid = merge_layers(choice.family, [*shipped, *users])
    diagnostics = [*args.files.diagnostics, *diagnostics, *_value_errors(choice, invalid)]
    if FOLDER in values:  # where a custom task was found, instead of where it was searched
        found = custom_task.task_folder(values["model.family"].value)
        values[FOLDER] = replace(values[FOLDER], value=found)
    if is_custom(choice.family):
        values["promise"] = _promised(values, choice.mode)
    paths.keep_recorded(values)
    data_notes = feature_checks.point_data_path(values)
    world = adapt.decide_world(values, machine, world_size, diagnostics, chosen)
    notes = [*_model_notes(choice), *data_notes]
    adaptation = adapt.Adaptation(values, machine, world, notes, diagnostics)
    adapt.adapt_settings(adaptation)
    if chosen is not None:
        adapt.use_chosen(adaptation, chosen)
    notes += _size_notes(choice, values, machine)
    diagnostics += validate.check_settings(values)
    named = choice.family if choice.model_named else None
    diagnostics += ignored_variables(named, values, environment.variables())
    solved = _solve_batching(values, world.size, diagnostics)
    refused = [found for found in diagnostics if found.severity == "error"]
    if refused or solved is None:
        raise SettingsError(_in_order(refused, users))
    notes += adapt.batch_notes(values, solved)
    values = with_batch_numbers(values, solved, str(solved))
    settings = settings_class(choice.family).model_validate(
        nested({key: setting.value for key, setting in values.items()}), strict=True
    )
    return Resolved(
        settings=settings,
        values=values,
        world_size=world.size,
        nproc=world.nproc,
        promises=values["promise"].value,
        notes=notes,
        device=world.device,
        warnings=_in_order(diagnostics, users),
        chosen=chosen,
    )


def _promised(values: Mapping[str, Setting], mode: str | None) -> Setting:
    """What a mode promises of a custom task: only that for which it changes settings of it."""
    promise, node = values["promise"], presets.task_promises().get(mode or "")
    if mode is None or node is None:
        return promise
    shipped, left_out = presets.mode(mode).promise, {}
    for measure, keys in node_value(node).items():
        lacking = [key for key in keys if not _is_changed(values.get(key))]
        if promise.value.get(measure) == shipped[measure] and (lacking or not keys):
            needed = f"needs a change of {' and '.join(lacking)}"
            left_out[measure] = needed if lacking else "the mode changes nothing for it"
    if not left_out:
        return promise
    kept = {name: bounds for name, bounds in promise.value.items() if name not in left_out}
    reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
    place, how = f"ds_configs/custom_task.yaml:{node.line}", f"not promised: {reasons}"
    return overridden(promise, kept, Origin(MODE_LAYER, place, how))


def _is_changed(setting: Setting | None) -> bool:
    """Whether the mode changes a setting of a custom task; None: the task has no such setting."""
    return setting is not None and shipped_value(setting) != mode_default_value(setting)


def in_order_of_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The layers lowest first; those of one name keep their order."""
    return sorted(layers, key=lambda layer: LAYERS.index(layer.name))


def _with_length(declared: Layer) -> Layer:
    """The defaults of a custom task; its limit of steps overrides the epochs of all such tasks."""
    entries = {entry.key: entry for entry in declared.entries}
    most = entries.get("train.max_steps")
    if most is None or most.value is None or "train.epochs" in entries:
        return declared
    return replace(
        declared, entries=[*declared.entries, replace(most, key="train.epochs", value=None)]
    )


def _value_errors(choice: Choice, invalid: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Errors of single values; for a custom task that cannot be used, only that error."""
    known = {found.key for found in choice.diagnostics}
    unknown = ("model.", "data.") if custom_task.KEY in known else ()
    others = [e for e in invalid if e.key not in known and not (e.key or "").startswith(unknown)]
    return [*choice.diagnostics, *others]


def _solve_batching(
    values: dict[str, Setting], world_size: int, diagnostics: list[Diagnostic]
) -> Batching | None:
    """The batch numbers; None if they, or what they depend on, are invalid."""
    invalid = {found.key for found in diagnostics if found.severity == "error"}
    if invalid & {*BATCH_SETTINGS, "engine.nproc", "engine.name"}:
        return None
    try:
        return batching.solve_batching(values, world_size)
    except SettingsError as error:
        diagnostics += error.diagnostics
        return None


def _shipped_layers(choice: Choice) -> list[Layer]:
    """The layers that come with Gearshift; the built-in one is the schema's own."""
    family = file_of(choice.family)
    first = _block_layer(FAMILY_LAYER, family.default, choice)
    found = [first, _with_length(_block_layer(FAMILY_LAYER, family.declared, choice))]
    if not choice.model_named:
        origin = Origin(FAMILY_LAYER, "no model named")
        found.append(Layer(FAMILY_LAYER, [Entry("model.size", FIRST_RUN[1], origin)]))
    found.append(_block_layer(FAMILY_LAYER, family.sizes.get(choice.size or ""), choice))
    found += [_block_layer(FAMILY_LAYER, family.given[key], choice) for key in choice.given]
    size = choice.size or ""
    if choice.mode is not None:
        block = presets.mode(choice.mode).block
        found.append(replace(_block_layer(MODE_LAYER, block, choice), is_partial=True))
        found.append(_block_layer(MODE_LAYER, family.modes.get(choice.mode), choice))
        found.append(_block_layer(MODE_LAYER, family.size_modes.get((size, choice.mode)), choice))
    if choice.stage is not None:
        found.append(_block_layer(MODE_LAYER, family.stages.get(choice.stage), choice))
        found.append(_block_layer(MODE_LAYER, family.size_stages.get((size, choice.stage)), choice))
    if choice.profile is not None:
        block = presets.profile(choice.profile)
        found.append(replace(_block_layer(PROFILE_LAYER, block, choice), is_partial=True))
    if choice.engine is not None:
        origin = Origin(ENGINE_LAYER, f"engine {choice.engine}")
        needed: Mapping[str, Any] = ENGINES[choice.engine].settings
        entries = [Entry(key, value, origin) for key, value in needed.items()]
        found.append(Layer(ENGINE_LAYER, entries))
    return found


def _block_layer(name: str, block: presets.Block | None, choice: Choice) -> Layer:
    if block is None:
        return Layer(name, [])
    return file_layer(name, block.settings, block.place, choice.family, -1)


def _in_order(diagnostics: Sequence[Diagnostic], users: Sequence[Layer]) -> list[Diagnostic]:
    """Diagnostics in the order of the user's settings, those of other layers last."""
    written = {entry.key: entry.order for layer in users for entry in layer.entries}
    last = (COMMAND_LINE + 1, 0)
    placed = [
        found if found.order else replace(found, order=written.get(found.key or "", last))
        for found in diagnostics
    ]
    return sorted(placed, key=lambda found: found.order or last)


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


def ignored_variables(
    family: str | None, values: Mapping[str, Setting], variables: Mapping[str, str]
) -> Iterator[Diagnostic]:
    """Warnings for variables of the environment that only the original of `family` reads.

    None: no model is named, and the variables of each original count. Only names in capitals of
    several words do, which no other program has, with an equivalent that the user has not set.
    """
    for owner, word in words_of(family):
        for name in word.names:
            typed, is_distinctive = variables.get(name), name.isupper() and "_" in name
            if not typed or not is_distinctive or word.here is None:
                continue
            if word.here in values and is_set_by_user(values[word.here]):
                continue
            model = [f"--model {owner}"] if family is None else []
            stage = [f"--stage {word.stage}"] if word.stage else []
            yield Diagnostic(
                f"the environment variable {name} has no effect: only the original reads it",
                key=word.here,
                where=f"the environment: {name}={typed}",
                fix=" ".join([typed_line(word, typed), *model, *stage]),
                severity="warning",
            )
