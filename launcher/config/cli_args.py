"""The person's layers: their files in order, then what they typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.base.redaction import redact
from launcher.config import errors, yaml_source
from launcher.config.custom_task import FOLDER
from launcher.config.entries import Entry, Layer, file_layer, find_node, typed_list
from launcher.config.leaves import SettingInfo, setting_infos
from launcher.config.nodes import Node, Unreadable, node_value
from launcher.config.resolved import CliArgs, Origin
from launcher.config.settings_file import read_settings_file
from models.catalog import split_model_name

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
    entries += [e for e in _typed(words, {}, []) if e.key in CHOICES]
    return {entry.key: entry for entry in entries}


def user_layers(words: CliArgs, files: Files, family: str) -> tuple[list[Layer], list[Diagnostic]]:
    """The person's layers, lowest first, and the words that are no settings at all."""
    diagnostics: list[Diagnostic] = []
    found = [
        file_layer("config", root, str(path), family, rank) for rank, path, root in files.roots
    ]
    found.append(Layer("command line", _typed(words, setting_infos(family), diagnostics)))
    return found, diagnostics


def _typed(
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
    return yaml_source.parse_yaml_value(text)


def _in_order(fault: Diagnostic, rank: int) -> Diagnostic:
    return replace(fault, order=(rank, fault.order[1] if fault.order else 0))
