"""Lays layers of settings over one another, lowest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.base.redaction import redact
from launcher.config import errors, presets, settings_file
from launcher.config import errors as refusals
from launcher.config.custom_task import FOLDER
from launcher.config.provenance import (
    MODE_LAYERS,
    PROFILE_LAYER,
    CliArgs,
    Entry,
    Layer,
    Origin,
    Setting,
    file_layer,
    find_node,
    typed_list,
)
from launcher.config.schema import SettingInfo, config_of, get, setting_infos, settings_class
from launcher.config.settings_file import Node, Unreadable, node_value, read_settings_file
from models.catalog import split_model_name
from training.settings import nested


def merge_layers(
    family: str, layers: Sequence[Layer]
) -> tuple[dict[str, Setting], list[Diagnostic]]:
    """Each leaf with its value and origins, and what is wrong with any layer.

    A faulty value is left out, so that all faults of one start are found together.
    """
    values = {
        key: Setting(_plain(leaf.default), Origin("built-in", "built-in"))
        for key, leaf in setting_infos(family).items()
    }
    diagnostics: list[Diagnostic] = []
    default: Mapping[str, Setting] | None = None
    for layer in layers:
        if layer.name in MODE_LAYERS and default is None:
            default = dict(values)
        entries = _usable(family, layer, values, diagnostics)
        if layer.name in MODE_LAYERS:
            entries = [_changed(family, entry, default or values) for entry in entries]
        elif layer.name == PROFILE_LAYER:
            entries = [_changed(family, entry, values) for entry in entries]
        allowed, wrong = _typed(family, entries, values)
        diagnostics.extend(wrong)
        for entry, value in allowed:
            below = values[entry.key]
            if entry.key == "promise":
                value = {**below.value, **value}
            history = ((below.value, below.origin), *below.replaced)
            values[entry.key] = Setting(value, entry.origin, history)
    return values, diagnostics


def _usable(
    family: str, layer: Layer, values: Mapping[str, Setting], diagnostics: list[Diagnostic]
) -> list[Entry]:
    """The layer's entries whose key there is; others become faults."""
    seen: dict[str, Entry] = {}
    for entry in layer.entries:
        if entry.key not in values:
            # What a mode or profile says of models and data in general, this family may not have.
            if layer.name not in ("mode", PROFILE_LAYER) or not entry.key.startswith(
                ("model.", "data.")
            ):
                diagnostics.append(refusals.unknown_key(family, entry))
        elif _is_torn(seen.get(entry.key), entry):
            diagnostics.append(refusals.twice(entry, seen[entry.key]))
        else:
            seen[entry.key] = entry
    return list(seen.values())


def _is_torn(first: Entry | None, entry: Entry) -> bool:
    """Whether two entries of one layer disagree, and none of them is the later on the line."""
    if first is None:
        return False
    if entry.option is None:
        return True  # nested and dotted in one file
    return first.option != entry.option and first.value != entry.value


def _changed(family: str, entry: Entry, default: Mapping[str, Setting]) -> Entry:
    if not presets.is_change(entry.value):
        return entry
    sizes = tuple(config_of(family).SIZES)
    before = default[entry.key].value
    value = presets.apply_change(entry.value, before, sizes)
    origin = replace(entry.origin, how=presets.describe_change(entry.value, before, value))
    return Entry(entry.key, value, origin, entry.option, entry.order)


def _typed(
    family: str, entries: Sequence[Entry], values: Mapping[str, Setting]
) -> tuple[list[tuple[Entry, Any]], list[Diagnostic]]:
    """The entries with their values as the schema reads them, and a fault for each other one."""
    by_key = {entry.key: entry for entry in entries}
    diagnostics: dict[str, Diagnostic] = {}
    wrong: set[str] = set()
    allowed = settings_class(family)
    settings = None
    try:
        tree = nested({key: entry.value for key, entry in by_key.items()})
        settings = allowed.model_validate(tree, strict=True)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key = _key_of(detail["loc"], by_key)
            leaf, entry, beneath = setting_infos(family)[key], by_key[key], values[key]
            fault = errors.item_diagnostic(leaf, entry, detail) if leaf.items else None
            fault = fault or refusals.bad_value(leaf, entry, detail["type"], beneath)
            wrong.add(key)
            diagnostics.setdefault(fault.key or key, fault)
        tree = nested({key: e.value for key, e in by_key.items() if key not in wrong})
        settings = allowed.model_validate(tree, strict=True)
    for key, entry in by_key.items():
        leaf = setting_infos(family)[key]
        if kind := refusals.unseen_by_schema(leaf, entry.value):
            wrong.add(key)
            diagnostics.setdefault(key, refusals.bad_value(leaf, entry, kind, values[key]))
    read = [
        (entry, _plain(get(settings, key))) for key, entry in by_key.items() if key not in wrong
    ]
    return read, list(diagnostics.values())


def _key_of(loc: Sequence[Any], keys: Mapping[str, Any]) -> str:
    """The leaf that a place in the tree belongs to; inside a leaf the rest is left off."""
    parts = [str(part) for part in loc]
    return next(key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in keys)


def _plain(value: Any) -> Any:
    """A value without the schema's classes: as mappings, with what was written in them."""
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


CHOICES = (
    *("model.family", "model.size", FOLDER, "mode", "stages"),
    *("limits.profile", "engine.name"),
)
"""What decides which shipped files are read, and where the person's own task is looked for."""
COMMAND_LINE = 1000
"""After all files, in the order of faults."""


@dataclass(frozen=True)
class Files:
    """The person's settings files that could be read, each with its place in the order."""

    roots: Sequence[tuple[int, Path, Node]]
    diagnostics: Sequence[Diagnostic]


def read_files(words: CliArgs) -> Files:
    """The files of --config. Reads the disk."""
    roots: list[tuple[int, Path, Node]] = []
    diagnostics: list[Diagnostic] = []
    for rank, path in enumerate(words.configs):
        try:
            roots.append((rank, path, read_settings_file(path)))
        except SettingsError as error:
            diagnostics += [_in_order(fault, rank) for fault in error.diagnostics]
    return Files(roots, diagnostics)


def chosen_entries(words: CliArgs, files: Files) -> dict[str, Entry]:
    """What the person chose of CHOICES, the last word on each."""
    entries = [
        Entry(
            key, node_value(node), Origin("config", f"{path}:{node.line}"), None, (rank, node.line)
        )
        for rank, path, root in files.roots
        for key in CHOICES
        if (node := find_node(root, key)) is not None
    ]
    entries += [e for e in _command_line_entries(words, {}, []) if e.key in CHOICES]
    return {entry.key: entry for entry in entries}


def user_layers(words: CliArgs, files: Files, family: str) -> tuple[list[Layer], list[Diagnostic]]:
    """The person's layers, lowest first, and the words that are no settings at all."""
    diagnostics: list[Diagnostic] = []
    found = [
        file_layer("config", root, str(path), family, rank) for rank, path, root in files.roots
    ]
    found.append(
        Layer("command line", _command_line_entries(words, setting_infos(family), diagnostics))
    )
    return found, diagnostics


def _command_line_entries(
    words: CliArgs, known: dict[str, SettingInfo], diagnostics: list[Diagnostic]
) -> list[Entry]:
    """The settings on the command line; for one key the later entry counts."""
    entries: list[Entry] = []

    def add(key: str, text: str, option: str, place: str) -> None:
        order, place = (COMMAND_LINE, len(entries)), redact(place)
        try:
            value = _meaning(known.get(key), text)
        except Unreadable as error:
            diagnostics.append(errors.unreadable(place, error, order))
            return
        entries.append(Entry(key, value, Origin("command line", place), option, order, text))

    if words.model is not None:
        family, size = split_model_name(words.model)
        add("model.family", family, "--model", f"--model {words.model}")
        if size:
            add("model.size", size, f"--model {family}:", f"--model {words.model}")
    if words.mode is not None:
        typed = f"--mode {words.mode}" if words.mode_option == "--mode" else words.mode_option
        add("mode", words.mode, "--mode", typed)
    if words.engine is not None:
        add("engine.name", words.engine, "--engine", f"--engine {words.engine}")
    for key, (option, text) in words.options.items():
        is_switch = text == "true" and key in known and known[key].type == "true or false"
        add(key, text, option, option if is_switch else f"{option} {text}")
    for text in words.sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            add(key.strip(), value, "--set", f"--set {text}")
        else:
            diagnostics.append(errors.no_assignment(text, (COMMAND_LINE, len(entries))))
    for one in words.filled:
        origin = Origin("command line", one.place)
        entries.append(Entry(one.key, one.value, origin, one.option, (COMMAND_LINE, len(entries))))
    return entries


def _meaning(leaf: SettingInfo | None, text: str) -> object:
    """A word of the command line: as typed where the setting is a text, else as YAML reads it.

    Of a list of texts the brackets may be left out.
    """
    if leaf is None or leaf.type in ("text", "one of"):
        nothing = leaf is not None and leaf.nullable and text in ("null", "~")
        return None if nothing else text
    if leaf.type == "list of texts" and not text.startswith("["):
        return typed_list(text)
    return settings_file.parse_yaml_value(text)


def _in_order(fault: Diagnostic, rank: int) -> Diagnostic:
    return replace(fault, order=(rank, fault.order[1] if fault.order else 0))
