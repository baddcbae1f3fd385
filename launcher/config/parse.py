"""What the user typed: the entries of the command line, and the trees of the settings files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.base.redaction import redact
from launcher.config import errors
from launcher.config.presets import TASK_FOLDER
from launcher.config.provenance import (
    CLI_LAYER,
    FILES_LAYER,
    MODE_LAYER,
    CliArgs,
    Origin,
    TypedEntry,
    file_entries,
    find_node,
)
from launcher.config.schema import FIRST_RUN, SettingInfo, setting_infos
from launcher.config.settings_file import (
    Node,
    Unreadable,
    node_value,
    parse_settings,
    parse_yaml_value,
    read_text,
)
from models.catalog import split_model_name

MODEL_CHOICES = ("model.family", "model.size", TASK_FOLDER)
CHOICES = (*MODEL_CHOICES, "mode", "stages", "limits.profile", "engine.name")
"""Settings that decide which shipped files are read, and where a custom task is searched."""
COMMAND_LINE = 1000
"""Position of the command line in the order of diagnostics: after all files."""
_Source = tuple[int, Path, Node]
"""Position on the command line, path and tree of a file."""


@dataclass(frozen=True)
class UserSettings:
    """What the user set, lowest first: a mode file, the files of --config, and arguments."""

    mode: _Source | None
    files: Sequence[_Source]
    arguments: Sequence[TypedEntry]
    """Their values are texts: the type of a setting depends on the family."""
    diagnostics: Sequence[Diagnostic]
    """Files that cannot be read, and arguments that set nothing."""

    def entries(
        self, keys: Collection[str] = CHOICES, family: str = FIRST_RUN[0]
    ) -> dict[str, TypedEntry]:
        """The entries for `keys` of `family`, each from the highest layer."""
        entries = {}
        for position, path, root in [*([self.mode] if self.mode else []), *self.files]:
            for key in keys:
                if (node := find_node(root, key)) is not None:
                    origin, order = (
                        Origin(FILES_LAYER, f"{path}:{node.line}"),
                        (position, node.line),
                    )
                    entries[key] = TypedEntry(key, node_value(node), origin, order=order)
        for entry in self.arguments:
            if entry.key in keys:
                with suppress(Unreadable):  # which is reported with all errors
                    entries[entry.key] = _with_value(entry, setting_infos(family).get(entry.key))
        return entries

    def layers(self, family: str) -> tuple[list[list[TypedEntry]], list[Diagnostic]]:
        """The entries of each file and of the arguments, and arguments that cannot be read."""
        infos, diagnostics, arguments = setting_infos(family), list[Diagnostic](), []
        files = [
            file_entries(FILES_LAYER, root, str(path), family, position)
            for position, path, root in self.files
        ]
        for entry in self.arguments:
            try:
                arguments.append(_with_value(entry, infos.get(entry.key)))
            except Unreadable as error:
                diagnostics.append(errors.unreadable(entry.origin.where, error, entry.order))
        return [*files, arguments], diagnostics

    def mode_layer(self, family: str) -> tuple[list[TypedEntry], list[Diagnostic]]:
        """The entries of the mode file, above those of the mode it names, and its errors."""
        if self.mode is None:
            return [], []
        position, path, root = self.mode
        entries = file_entries(MODE_LAYER, root, str(path), family, position)
        options = {"model.size": f"--model {family}:", "model.family": "--model"}
        diagnostics = [
            Diagnostic(
                f"a mode file cannot set {entry.key}",
                key=entry.key,
                value=entry.value,
                where=errors.where(entry.key, entry.origin),
                fix="remove it, and type  "
                + errors.line(options.get(entry.key, "--set"), entry.key, entry.value),
                order=entry.order,
            )
            for entry in entries
            if entry.key in MODEL_CHOICES
        ]
        return [entry for entry in entries if entry.key not in MODEL_CHOICES], diagnostics


@lru_cache(maxsize=8)
def read(args: CliArgs) -> UserSettings:
    """The settings among the arguments, and of the files that they name. Reads each file once."""
    diagnostics: list[Diagnostic] = []
    files = [_source(path, at, "--config", diagnostics) for at, path in enumerate(args.configs)]
    mode = None
    if args.mode_file and (mode := _source(args.mode_file, COMMAND_LINE, "--mode", diagnostics)):
        nodes = {key: node for key, node in mode[2].value.items() if key != "sentence"}
        mode = (*mode[:2], replace(mode[2], value=nodes))
    return UserSettings(
        mode=mode,
        files=[source for source in files if source is not None],
        arguments=list(_arguments(args, diagnostics)),
        diagnostics=diagnostics,
    )


def _source(
    path: Path, position: int, option: str, diagnostics: list[Diagnostic]
) -> _Source | None:
    """A settings file that `option` names, and its errors."""
    try:
        root = parse_settings(path, read_text(path, option))
    except SettingsError as error:
        for diagnostic in error.diagnostics:
            line = diagnostic.order[1] if diagnostic.order else 0
            diagnostics.append(replace(diagnostic, order=(position, line)))
        return None
    return position, path, root


def _arguments(args: CliArgs, diagnostics: list[Diagnostic]) -> Iterator[TypedEntry]:
    """The settings on the command line; for one key the later entry counts."""
    number = 0

    def entry(key: str, text: str, option: str, argument: str) -> TypedEntry:
        nonlocal number
        number += 1
        origin, order = Origin(CLI_LAYER, redact(argument)), (COMMAND_LINE, number)
        return TypedEntry(key, text, origin, option, order, text)

    if args.model is not None:
        family, size = split_model_name(args.model)
        yield entry("model.family", family, "--model", f"--model {args.model}")
        if size or args.model.endswith(":"):
            yield entry("model.size", size, f"--model {family}:", f"--model {args.model}")
    if args.mode is not None and args.mode_file is None:
        is_option = args.mode_option == "--mode"
        argument = f"--mode {args.mode}" if is_option else args.mode_option
        yield entry("mode", args.mode, "--mode", argument)
    if args.engine is not None:
        yield entry("engine.name", args.engine, "--engine", f"--engine {args.engine}")
    for key, (option, text) in args.options.items():
        yield entry(key, text, option, f"{option} {text}")
    for text in args.sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            yield entry(key.strip(), value, "--set", f"--set {text}")
        else:
            diagnostics.append(errors.no_assignment(text, (COMMAND_LINE, number)))
    for implied in args.filled:
        yield replace(implied, order=(COMMAND_LINE, number + 1))


def _with_value(entry: TypedEntry, info: SettingInfo | None) -> TypedEntry:
    """An argument with the value of its text: as typed if the setting is a text, else YAML.

    The brackets of a list of texts may be left out. Raises Unreadable.
    """
    text = entry.text
    if text is None:  # a setting that another option implies
        return entry
    if info is None or info.type in ("text", "one of"):
        is_null = info is not None and info.nullable and text in ("null", "~")
        return replace(entry, value=None) if is_null else entry
    if info.type == "true or false" and text == "true" and entry.option != "--set":
        entry = replace(entry, origin=replace(entry.origin, where=str(entry.option)))
    if info.type == "list of texts" and not text.startswith("["):
        return replace(entry, value=[item.strip() for item in text.split(",")])
    return replace(entry, value=parse_yaml_value(text))
