"""The layers of settings: the user's files and arguments, and merging all layers."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from launcher.base.diagnostics import Diagnostic
from launcher.base.redaction import redact
from launcher.config import errors, list_items, presets, settings_file
from launcher.config.custom_task import FOLDER
from launcher.config.provenance import (
    BUILT_IN_LAYER,
    CLI_LAYER,
    FILES_LAYER,
    MODE_LAYER,
    PROFILE_LAYER,
    CliArgs,
    Entry,
    Layer,
    Origin,
    Setting,
    file_layer,
    find_node,
    overridden,
    typed_list,
)
from launcher.config.schema import SettingInfo, config_of, get, setting_infos, settings_class
from launcher.config.settings_file import Unreadable, node_value
from models.catalog import split_model_name
from training.settings import nested

MODEL_CHOICES = ("model.family", "model.size", FOLDER)
CHOICES = (*MODEL_CHOICES, "mode", "stages", "limits.profile", "engine.name")
"""Settings that decide which shipped files are read, and where a custom task is searched."""
COMMAND_LINE = 1000
"""Position of the command line in the order of diagnostics: after all files."""


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


def chosen_entries(args: CliArgs, keys: Collection[str] = CHOICES) -> dict[str, Entry]:
    """The user's entries for `keys`, each from the highest layer."""
    mode, _ = args.mode_settings
    files = [(COMMAND_LINE, args.mode_file, mode)] if mode is not None else []
    entries = [
        Entry(
            key,
            node_value(node),
            Origin(FILES_LAYER, f"{path}:{node.line}"),
            order=(position, node.line),
        )
        for position, path, root in [*files, *args.files.roots]
        for key in keys
        if (node := find_node(root, key)) is not None
    ]
    entries += [entry for entry in _typed_entries(args, {}, []) if entry.key in keys]
    return {entry.key: entry for entry in entries}


def user_layers(args: CliArgs, family: str) -> tuple[list[Layer], list[Diagnostic]]:
    """The layers of files and command line, lowest first, and arguments that set nothing."""
    diagnostics: list[Diagnostic] = []
    typed = Layer(CLI_LAYER, _typed_entries(args, setting_infos(family), diagnostics))
    files = args.files.roots
    found = [file_layer(FILES_LAYER, root, str(path), family, at) for at, path, root in files]
    return [*found, typed], diagnostics


def mode_file_layer(args: CliArgs, family: str) -> tuple[list[Layer], list[Diagnostic]]:
    """The layer of a mode file, above the mode it names, and the errors of the file."""
    root, diagnostics = args.mode_settings
    if root is None:
        return [], list(diagnostics)
    layer = file_layer(MODE_LAYER, root, str(args.mode_file), family, COMMAND_LINE)
    of_model = [entry for entry in layer.entries if entry.key in MODEL_CHOICES]
    wrong = [
        Diagnostic(
            f"a mode file cannot set {entry.key}",
            key=entry.key,
            value=entry.value,
            where=errors.where(entry.key, entry.origin),
            fix=f"remove it, and type  {_option(entry, family)}",
            order=entry.order,
        )
        for entry in of_model
    ]
    entries = [entry for entry in layer.entries if entry not in of_model]
    return [replace(layer, entries=entries)], wrong


def _option(entry: Entry, family: str) -> str:
    """The option of a command line for an entry that chooses the model."""
    if entry.key == FOLDER:
        return f"--set {shlex.quote(f'{FOLDER}={entry.value}')}"
    size = f":{entry.value}"
    return f"--model {family}{size}" if entry.key == "model.size" else f"--model {entry.value}"


def _typed_entries(
    args: CliArgs, known: dict[str, SettingInfo], diagnostics: list[Diagnostic]
) -> list[Entry]:
    """The settings on the command line; for one key the later entry counts."""
    entries: list[Entry] = []

    def add(key: str, text: str, option: str, typed: str) -> None:
        order, typed = (COMMAND_LINE, len(entries)), redact(typed)
        try:
            value = _parse(known.get(key), text)
        except Unreadable as error:
            diagnostics.append(errors.unreadable(typed, error, order))
            return
        entries.append(Entry(key, value, Origin(CLI_LAYER, typed), option, order, text))

    if args.model is not None:
        family, size = split_model_name(args.model)
        add("model.family", family, "--model", f"--model {args.model}")
        if size or args.model.endswith(":"):
            add("model.size", size, f"--model {family}:", f"--model {args.model}")
    if args.mode is not None and args.mode_file is None:
        option = args.mode_option
        add("mode", args.mode, "--mode", f"--mode {args.mode}" if option == "--mode" else option)
    if args.engine is not None:
        add("engine.name", args.engine, "--engine", f"--engine {args.engine}")
    for key, (option, text) in args.options.items():
        is_switch = text == "true" and key in known and known[key].type == "true or false"
        add(key, text, option, option if is_switch else f"{option} {text}")
    for text in args.sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            add(key.strip(), value, "--set", f"--set {text}")
        else:
            diagnostics.append(errors.no_assignment(text, (COMMAND_LINE, len(entries))))
    for implied in args.filled:
        origin, order = Origin(CLI_LAYER, implied.where), (COMMAND_LINE, len(entries))
        entries.append(Entry(implied.key, implied.value, origin, implied.option, order))
    return entries


def _parse(info: SettingInfo | None, text: str) -> object:
    """A value of the command line: as typed if the setting is a text, else parsed as YAML.

    The brackets of a list of texts may be left out.
    """
    if info is None or info.type in ("text", "one of"):
        is_null = info is not None and info.nullable and text in ("null", "~")
        return None if is_null else text
    if info.type == "list of texts" and not text.startswith("["):
        return typed_list(text)
    return settings_file.parse_yaml_value(text)


def _known_entries(
    family: str, layer: Layer, values: Mapping[str, Setting], diagnostics: list[Diagnostic]
) -> list[Entry]:
    """The layer's entries for existing settings; others become errors."""
    seen: dict[str, Entry] = {}
    for entry in layer.entries:
        if entry.key not in values:
            if not (layer.is_partial and entry.key.split(".")[0] in ("model", "data")):
                diagnostics.extend(errors.unknown_keys(family, entry))
        elif _is_conflict(seen.get(entry.key), entry):
            diagnostics.append(errors.set_twice(entry, seen[entry.key]))
        else:
            seen[entry.key] = entry
    return list(seen.values())


def _is_conflict(first: Entry | None, entry: Entry) -> bool:
    """Whether two entries of one layer disagree, and neither comes later on the command line."""
    if first is None:
        return False
    if entry.option is None:
        return True  # nested and dotted in one file
    return first.option != entry.option and first.value != entry.value


def _apply_change(family: str, entry: Entry, default: Mapping[str, Setting]) -> Entry:
    if not presets.is_change(entry.value):
        return entry
    sizes = tuple(config_of(family).SIZES)
    before = default[entry.key].value
    value = presets.apply_change(entry.value, before, sizes)
    origin = replace(entry.origin, how=presets.describe_change(entry.value, before, value))
    return Entry(entry.key, value, origin, entry.option, entry.order)


def _check_types(
    family: str, entries: Sequence[Entry], values: Mapping[str, Setting]
) -> tuple[list[tuple[Entry, Any]], list[Diagnostic]]:
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
            found = list_items.item_diagnostic(info, entry, detail) if info.items else None
            found = found or errors.bad_value(info, entry, detail["type"], below)
            invalid.add(key)
            diagnostics.setdefault(found.key or key, found)
        tree = nested({key: e.value for key, e in by_key.items() if key not in invalid})
        settings = schema.model_validate(tree, strict=True)
    for key, entry in by_key.items():
        if kind := errors.unseen_by_schema(infos[key], entry.value):
            invalid.add(key)
            found = errors.bad_value(infos[key], entry, kind, values[key])
            diagnostics.setdefault(key, found)
    kept = [(key, entry) for key, entry in by_key.items() if key not in invalid]
    valid = [(entry, _plain(get(settings, key))) for key, entry in kept]
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
