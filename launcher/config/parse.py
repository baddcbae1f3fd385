"""What the user typed: the entries of the settings files and of the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
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
    entries,
)
from launcher.config.schema import FIRST_RUN, SettingInfo, setting_infos
from launcher.config.settings_file import Unreadable, parse_yaml_value, read_lines
from models.catalog import split_model_name

MODEL_CHOICES = ("model.family", "model.size", TASK_FOLDER)
CHOICES = (*MODEL_CHOICES, "mode", "stages", "limits.profile", "engine.name")
"""Settings that decide which shipped files are read, and where a custom task is searched."""
COMMAND_LINE = 1000
"""Position of the command line in the order of diagnostics: after all files."""


@dataclass(frozen=True)
class UserSettings:
    """What the user set, lowest first: a mode file, the files of --config, and arguments."""

    mode: Sequence[TypedEntry]
    files: Sequence[Sequence[TypedEntry]]
    arguments: Sequence[TypedEntry]
    """Their values are texts: the type of a setting depends on the family."""
    diagnostics: Sequence[Diagnostic]
    """Files that cannot be read, and arguments that set nothing."""

    def highest(self, keys: Collection[str] = CHOICES, family: str = FIRST_RUN[0]) -> dict[str, TypedEntry]:
        """The entry of the highest layer for each of `keys` of `family`."""
        found = {}
        for entry in chain(self.mode, *self.files, self.arguments):
            if entry.key in keys:
                with suppress(Unreadable):  # which is reported with all errors
                    found[entry.key] = _with_value(entry, setting_infos(family).get(entry.key))
        return found

    def layers(self, family: str) -> tuple[list[Sequence[TypedEntry]], list[Diagnostic]]:
        """The entries of each file and of the arguments, and arguments that cannot be read."""
        infos, wrong, arguments = setting_infos(family), list[Diagnostic](), []
        for entry in self.arguments:
            try:
                arguments.append(_with_value(entry, infos.get(entry.key)))
            except Unreadable as error:
                message = f"{entry.origin.where} cannot be read: {error.problem}"
                wrong.append(errors.about_entry(entry, message, key=None, value=None))
        return [*self.files, arguments], wrong


@lru_cache(maxsize=8)
def read(args: CliArgs) -> UserSettings:
    """The settings among the arguments, and of the files that they name. Reads each file once."""
    wrong: list[Diagnostic] = []
    return UserSettings(
        mode=_mode_file(args, wrong),
        files=[_file(FILES_LAYER, path, n, "--config", wrong) for n, path in enumerate(args.configs)],
        arguments=list(_arguments(args, wrong)),
        diagnostics=wrong,
    )


def _mode_file(args: CliArgs, wrong: list[Diagnostic]) -> list[TypedEntry]:
    """The entries of a mode of the user's own, above those of the mode that it names."""
    if args.mode_file is None:
        return []
    typed = _file(MODE_LAYER, args.mode_file, COMMAND_LINE, "--mode", wrong)
    allowed = "--model and --set on the command line"
    wrong += [
        errors.about_entry(entry, f"a mode file cannot set {entry.key}", allowed=allowed, fix="remove it")
        for entry in typed
        if entry.key in MODEL_CHOICES
    ]
    return [entry for entry in typed if entry.key not in (*MODEL_CHOICES, "sentence")]


def _file(layer: str, path: Path, position: int, option: str, wrong: list[Diagnostic]) -> list[TypedEntry]:
    try:
        return entries(layer, read_lines(path, option), position)
    except SettingsError as error:
        wrong += [replace(d, order=(position, d.order[1] if d.order else 0)) for d in error.diagnostics]
        return []


def _arguments(args: CliArgs, wrong: list[Diagnostic]) -> Iterator[TypedEntry]:
    """The settings on the command line; for one key the later entry counts."""
    typed: list[tuple[str, str, str, str]] = []  # key, text, option, argument
    if args.model is not None:
        family, size = split_model_name(args.model)
        typed.append(("model.family", family, "--model", f"--model {args.model}"))
        if size or args.model.endswith(":"):
            typed.append(("model.size", size, f"--model {family}:", f"--model {args.model}"))
    options = {"mode": (args.mode_option, args.mode if args.mode_file is None else None)}
    options |= {"engine.name": ("--engine", args.engine), **args.options}
    for key, (name, text) in options.items():
        if text is None:
            continue
        is_short = name != "--mode" and key == "mode"  # --fast, --stage text
        typed.append((key, text, "--mode" if is_short else name, name if is_short else f"{name} {text}"))
    for text in args.sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            typed.append((key.strip(), value, "--set", f"--set {text}"))
        else:
            message, form = f"--set {text} has no value", "--set KEY=VALUE; for example  --set optim.lr=1e-3"
            order = (COMMAND_LINE, len(typed))
            wrong.append(Diagnostic(message, where=f"--set {text}", allowed=form, order=order))
    for number, (key, text, option, argument) in enumerate(typed, 1):
        origin = Origin(CLI_LAYER, redact(argument))
        yield TypedEntry(key, text, origin, option, (COMMAND_LINE, number), text)
    for implied in args.filled:
        yield replace(implied, order=(COMMAND_LINE, len(typed) + 1))


def _with_value(entry: TypedEntry, info: SettingInfo | None) -> TypedEntry:
    """An argument with the value of its text: as typed if the setting is a text, else YAML.

    The brackets of a list of texts may be left out. Raises Unreadable.
    """
    text = entry.text
    if text is None:
        return entry
    if info is None or info.type in ("text", "one of"):
        is_null = info is not None and info.nullable and text in ("null", "~")
        return replace(entry, value=None) if is_null else entry
    if info.type == "true or false" and text == "true" and entry.option != "--set":
        entry = replace(entry, origin=replace(entry.origin, where=str(entry.option)))
    if info.type == "list of texts" and not text.startswith("["):
        return replace(entry, value=[item.strip() for item in text.split(",")])
    return replace(entry, value=parse_yaml_value(text))
