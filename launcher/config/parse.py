"""What the user typed: the entries of the command line, and the trees of the settings files."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
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
    Layer,
    Origin,
    TypedEntry,
    file_layer,
    find_node,
    flatten,
    typed_list,
)
from launcher.config.schema import FIRST_RUN, SettingInfo, sections, setting_infos
from launcher.config.settings_file import (
    Node,
    Unreadable,
    node_value,
    parse_settings,
    parse_yaml_value,
    read_settings_file,
    read_text,
)
from models.catalog import split_model_name

MODEL_CHOICES = ("model.family", "model.size", TASK_FOLDER)
CHOICES = (*MODEL_CHOICES, "mode", "stages", "limits.profile", "engine.name")
"""Settings that decide which shipped files are read, and where a custom task is searched."""
COMMAND_LINE = 1000
"""Position of the command line in the order of diagnostics: after all files."""


@dataclass(frozen=True)
class UserSettings:
    """What the user set, lowest first: a mode file, the files of --config, and arguments."""

    mode_file: Path | None
    mode_root: Node | None
    files: Sequence[tuple[int, Path, Node]]
    """Position on the command line, path and tree of each file."""
    arguments: Sequence[TypedEntry]
    """Their values are texts: the type of a setting depends on the family."""
    diagnostics: Sequence[Diagnostic]
    """Files that cannot be read, and arguments that set nothing."""

    def entries(self, keys: Collection[str] = CHOICES) -> dict[str, TypedEntry]:
        """The entries for `keys`, each from the highest layer."""
        files = list(self.files)
        if self.mode_file is not None and self.mode_root is not None:
            files.insert(0, (COMMAND_LINE, self.mode_file, self.mode_root))
        entries = [
            TypedEntry(
                key,
                node_value(node),
                Origin(FILES_LAYER, f"{path}:{node.line}"),
                order=(position, node.line),
            )
            for position, path, root in files
            for key in keys
            if (node := find_node(root, key)) is not None
        ]
        entries += [entry for entry in self.arguments if entry.key in keys]
        return {entry.key: entry for entry in entries}

    def layers(self, family: str) -> tuple[list[Layer], list[Diagnostic]]:
        """The layers of files and arguments for `family`, and arguments that cannot be read."""
        infos, diagnostics, entries = setting_infos(family), list[Diagnostic](), list[TypedEntry]()
        for entry in self.arguments:
            try:
                entries.append(_with_value(entry, infos.get(entry.key)))
            except Unreadable as error:
                diagnostics.append(errors.unreadable(entry.origin.where, error, entry.order))
        files = [
            file_layer(FILES_LAYER, root, str(path), family, at) for at, path, root in self.files
        ]
        return [*files, Layer(CLI_LAYER, entries)], diagnostics

    def mode_layer(self, family: str) -> tuple[list[Layer], list[Diagnostic]]:
        """The layer of the mode file, above the mode it names, and the errors of the file."""
        if self.mode_root is None:
            return [], []
        layer = file_layer(MODE_LAYER, self.mode_root, str(self.mode_file), family, COMMAND_LINE)
        of_model = [entry for entry in layer.entries if entry.key in MODEL_CHOICES]
        diagnostics = [
            Diagnostic(
                f"a mode file cannot set {entry.key}",
                key=entry.key,
                value=entry.value,
                where=errors.where(entry.key, entry.origin),
                fix=f"remove it, and type  {_model_option(entry, family)}",
                order=entry.order,
            )
            for entry in of_model
        ]
        entries = [entry for entry in layer.entries if entry not in of_model]
        return [replace(layer, entries=entries)], diagnostics


@lru_cache(maxsize=8)
def read(args: CliArgs) -> UserSettings:
    """The settings among the arguments, and of the files that they name. Reads each file once."""
    diagnostics: list[Diagnostic] = []
    return UserSettings(
        mode_file=args.mode_file,
        mode_root=_mode_root(args.mode_file, diagnostics),
        files=list(_files(args.configs, diagnostics)),
        arguments=list(_arguments(args, diagnostics)),
        diagnostics=diagnostics,
    )


def _files(
    paths: Sequence[Path], diagnostics: list[Diagnostic]
) -> Iterator[tuple[int, Path, Node]]:
    for position, path in enumerate(paths):
        try:
            yield position, path, _root(path, read_text(path))
        except SettingsError as error:
            diagnostics += [
                replace(
                    diagnostic, order=(position, diagnostic.order[1] if diagnostic.order else 0)
                )
                for diagnostic in error.diagnostics
            ]


def _root(path: Path, text: str) -> Node:
    """The tree of a settings file. Raises SettingsError, also for a file of another program."""
    root, broken = None, None
    try:
        root = parse_settings(path, text)
    except SettingsError as error:
        broken = error
    family = FIRST_RUN[0]
    if root is None or any(
        key not in setting_infos(family) for key, _ in flatten(root, sections(family))
    ):
        from launcher.config import foreign_files  # takes time, and most files are ours

        if (foreign := foreign_files.as_config(path, text)) is not None:
            raise SettingsError([foreign])
    if root is None:
        assert broken is not None
        raise broken
    return root


def _mode_root(path: Path | None, diagnostics: list[Diagnostic]) -> Node | None:
    """The settings of a file of the user's own mode; errors name --mode."""
    if path is None:
        return None
    try:
        root = read_settings_file(path)
    except SettingsError as error:
        for diagnostic in error.diagnostics:
            where, fix = (
                text and text.replace("--config", "--mode")
                for text in (diagnostic.where, diagnostic.fix)
            )
            diagnostics.append(replace(diagnostic, where=where, fix=fix))
        return None
    return replace(root, value={key: root.value[key] for key in root.value if key != "sentence"})


def _model_option(entry: TypedEntry, family: str) -> str:
    """The option of a command line for an entry that chooses the model."""
    if entry.key == TASK_FOLDER:
        return f"--set {shlex.quote(f'{TASK_FOLDER}={entry.value}')}"
    size = f":{entry.value}"
    return f"--model {family}{size}" if entry.key == "model.size" else f"--model {entry.value}"


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
        option = args.mode_option
        argument = f"--mode {args.mode}" if option == "--mode" else option
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
        origin, order = Origin(CLI_LAYER, implied.where), (COMMAND_LINE, number + 1)
        yield TypedEntry(implied.key, implied.value, origin, implied.option, order)


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
        return replace(entry, value=typed_list(text))
    return replace(entry, value=parse_yaml_value(text))
