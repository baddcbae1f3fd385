"""The layers of settings: those that come with Gearshift, the user's, and stacking them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic
from launcher.config import presets
from launcher.config.parse import UserSettings
from launcher.config.presets import TASK_FOLDER
from launcher.config.provenance import (
    BUILT_IN_LAYER,
    ENGINE_LAYER,
    FAMILY_LAYER,
    MODE_LAYER,
    PROFILE_LAYER,
    Layer,
    Origin,
    Setting,
    TypedEntry,
    file_layer,
    mode_default_value,
    overridden,
    shipped_value,
)
from launcher.config.schema import (
    FIRST_RUN,
    config_of,
    get,
    setting_infos,
    settings_class,
    unseen_by_schema,
)
from launcher.config.selection import Choice
from launcher.config.settings_file import node_value
from models.catalog import is_custom
from training.settings import nested

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base


def stack_layers(
    choice: Choice, user: UserSettings, base: Base | None = None, is_placed: bool = False
) -> tuple[dict[str, Setting], list[Layer], list[Diagnostic]]:
    """Every setting after all layers, the layers of the user, and the errors in both.

    `base`: the settings of the resumed run; `is_placed`: torchrun or srun started the processes.
    """
    family = choice.family
    users, diagnostics = user.layers(family)
    of_mode_file, wrong = user.mode_layer(family)
    shipped = _shipped_layers(choice, of_mode_file)
    if base is not None:
        below, _ = merge_layers(family, shipped)
        keys = {entry.key for layer in users for entry in layer.entries}
        users = [base.over(below, keys, choice.engine, is_placed), *users]
    values, invalid = merge_layers(family, [*shipped, *users])
    if TASK_FOLDER in values:  # where a custom task was found, instead of where it was searched
        folder = setting_infos(family)[TASK_FOLDER].default
        values[TASK_FOLDER] = replace(values[TASK_FOLDER], value=folder)
    if is_custom(family):
        values["promise"] = _promised(values, choice.mode)
    of_values = _value_diagnostics(choice, invalid)
    return values, users, [*user.diagnostics, *diagnostics, *wrong, *of_values]


def _value_diagnostics(choice: Choice, invalid: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Errors of single values; for a custom task that cannot be used, only that error."""
    known = {diagnostic.key for diagnostic in choice.diagnostics}
    unknown = ("model.", "data.") if "model.family" in known else ()
    others = [e for e in invalid if e.key not in known and not (e.key or "").startswith(unknown)]
    return [*choice.diagnostics, *others]


def _shipped_layers(choice: Choice, of_mode_file: Sequence[Layer]) -> list[Layer]:
    """The layers that come with Gearshift, lowest first; the built-in one is the schema's own."""
    file, size, mode, stage = choice.file, choice.size or "", choice.mode, choice.stage
    first = [
        _block_layer(FAMILY_LAYER, file.default, choice),
        _with_length(_block_layer(FAMILY_LAYER, file.declared, choice)),
    ]
    if not choice.model_named:
        origin = Origin(FAMILY_LAYER, "no model named")
        first.append(Layer(FAMILY_LAYER, [TypedEntry("model.size", FIRST_RUN[1], origin)]))
    blocks: list[tuple[str, presets.SettingsBlock | None]] = [(FAMILY_LAYER, file.sizes.get(size))]
    blocks += [(FAMILY_LAYER, file.given[key]) for key in choice.given]
    if mode is not None:
        blocks.append((MODE_LAYER, presets.mode(mode).block))
        blocks.append((MODE_LAYER, file.modes.get(mode)))
        blocks.append((MODE_LAYER, file.size_modes.get((size, mode))))
    if stage is not None:
        blocks.append((MODE_LAYER, file.stages.get(stage)))
        blocks.append((MODE_LAYER, file.size_stages.get((size, stage))))
    layers = [*first, *(_block_layer(name, block, choice) for name, block in blocks), *of_mode_file]
    if choice.profile is not None:
        layers.append(_block_layer(PROFILE_LAYER, presets.profile(choice.profile), choice))
    if choice.engine is not None:
        origin = Origin(ENGINE_LAYER, f"engine {choice.engine}")
        needed: Mapping[str, Any] = ENGINES[choice.engine].settings
        layers.append(Layer(ENGINE_LAYER, [TypedEntry(key, needed[key], origin) for key in needed]))
    return layers


def _block_layer(name: str, block: presets.SettingsBlock | None, choice: Choice) -> Layer:
    if block is None:
        return Layer(name, [])
    layer = file_layer(name, block.settings, block.place, choice.family, -1)
    return replace(layer, is_partial=block.is_shared)


def _with_length(declared: Layer) -> Layer:
    """The defaults of a custom task; its limit of steps overrides the epochs of all such tasks."""
    entries = {entry.key: entry for entry in declared.entries}
    max_steps = entries.get("train.max_steps")
    if max_steps is None or max_steps.value is None or "train.epochs" in entries:
        return declared
    return replace(
        declared, entries=[*declared.entries, replace(max_steps, key="train.epochs", value=None)]
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
    new_promise = {name: bounds for name, bounds in promise.value.items() if name not in left_out}
    reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
    where, how = f"ds_configs/custom_task.yaml:{node.line}", f"not promised: {reasons}"
    return overridden(promise, new_promise, Origin(MODE_LAYER, where, how))


def _is_changed(setting: Setting | None) -> bool:
    """Whether the mode changes a setting of a custom task; None: the task has no such setting."""
    return setting is not None and shipped_value(setting) != mode_default_value(setting)


def merge_layers(
    family: str, layers: Sequence[Layer]
) -> tuple[dict[str, Setting], list[Diagnostic]]:
    """Every setting of the family after the layers, lowest first, and the errors in them.

    An invalid value is left out, so that all errors of one start are found together.
    """
    values = {
        key: Setting(_plain(info.default), Origin(BUILT_IN_LAYER, BUILT_IN_LAYER))
        for key, info in setting_infos(family).items()
    }
    diagnostics: list[Diagnostic] = []
    default: Mapping[str, Setting] | None = None
    for layer in layers:
        if layer.name == MODE_LAYER and default is None:
            default = dict(values)
        entries = _known_entries(family, layer, values, diagnostics)
        if layer.name == MODE_LAYER:
            entries = [_apply_change(family, entry, default or values) for entry in entries]
        elif layer.name == PROFILE_LAYER:
            entries = [_apply_change(family, entry, values) for entry in entries]
        valid, invalid = _check_types(family, entries, values)
        diagnostics.extend(invalid)
        for entry, value in valid:
            below = values[entry.key]
            if entry.key == "promise":
                value = {**below.value, **value}
            values[entry.key] = overridden(below, value, entry.origin)
    return values, diagnostics


def _known_entries(
    family: str, layer: Layer, values: Mapping[str, Setting], diagnostics: list[Diagnostic]
) -> list[TypedEntry]:
    """The layer's entries for existing settings; others become errors."""
    seen: dict[str, TypedEntry] = {}
    for entry in layer.entries:
        if entry.key not in values:
            if not (layer.is_partial and entry.key.split(".")[0] in ("model", "data")):
                diagnostics.extend(_value_errors().unknown_keys(family, entry))
        elif _is_conflict(seen.get(entry.key), entry):
            diagnostics.append(_value_errors().set_twice(entry, seen[entry.key]))
        else:
            seen[entry.key] = entry
    return list(seen.values())


def _is_conflict(first: TypedEntry | None, entry: TypedEntry) -> bool:
    """Whether two entries of one layer disagree, and neither comes later on the command line."""
    if first is None:
        return False
    if entry.option is None:
        return True  # nested and dotted in one file
    return first.option != entry.option and first.value != entry.value


def _apply_change(family: str, entry: TypedEntry, default: Mapping[str, Setting]) -> TypedEntry:
    if not presets.is_change(entry.value):
        return entry
    sizes = tuple(config_of(family).SIZES)
    before = default[entry.key].value
    value = presets.apply_change(entry.value, before, sizes)
    origin = replace(entry.origin, how=presets.describe_change(entry.value, before, value))
    return TypedEntry(entry.key, value, origin, entry.option, entry.order)


def _check_types(
    family: str, entries: Sequence[TypedEntry], values: Mapping[str, Setting]
) -> tuple[list[tuple[TypedEntry, Any]], list[Diagnostic]]:
    """The valid entries with their values as the schema reads them, and an error for each other."""
    by_key = {entry.key: entry for entry in entries}
    diagnostics: dict[str, Diagnostic] = {}
    invalid: set[str] = set()
    schema, infos = settings_class(family), setting_infos(family)
    try:
        tree = nested({key: entry.value for key, entry in by_key.items()})
        settings = schema.model_validate(tree, strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = _key_of(detail["loc"], by_key)
            info, entry, below = infos[key], by_key[key], values[key]
            diagnostic = _value_errors().rejected(info, entry, detail, below)
            invalid.add(key)
            diagnostics.setdefault(diagnostic.key or key, diagnostic)
        tree = nested({key: e.value for key, e in by_key.items() if key not in invalid})
        settings = schema.model_validate(tree, strict=True)
    for key, entry in by_key.items():
        if kind := unseen_by_schema(infos[key], entry.value):
            invalid.add(key)
            diagnostic = _value_errors().bad_value(infos[key], entry, kind, values[key])
            diagnostics.setdefault(key, diagnostic)
    valid_entries = [(key, entry) for key, entry in by_key.items() if key not in invalid]
    valid = [(entry, _plain(get(settings, key))) for key, entry in valid_entries]
    return valid, list(diagnostics.values())


def _key_of(loc: Sequence[Any], keys: Mapping[str, Any]) -> str:
    """The setting that a location in the tree belongs to."""
    parts = [str(part) for part in loc]
    return next(key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in keys)


def _plain(value: Any) -> Any:
    """A value with mappings for the schema's classes, holding only what was set."""
    if isinstance(value, list):
        return [
            item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item
            for item in value
        ]
    if isinstance(value, dict):
        return {
            key: item if isinstance(item, dict) else item.model_dump(exclude_none=True)
            for key, item in value.items()
        }
    return value


def _value_errors() -> ModuleType:
    """The module of these errors: it knows the words of other tools, and takes time."""
    from launcher.config import value_errors

    return value_errors
