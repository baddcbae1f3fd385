"""What the user typed, in files and arguments, and the family, size, mode and engine that it chooses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.base.redaction import redact
from launcher.config import errors, presets
from launcher.config.presets import TASK_FOLDER
from launcher.config.provenance import (
    CLI_LAYER,
    FILES_LAYER,
    MODE_LAYER,
    STAGED_MODE,
    CliArgs,
    Origin,
    Resolved,
    TypedEntry,
    entries,
)
from launcher.config.schema import (
    FIRST_RUN,
    PRETRAINED,
    SettingInfo,
    config_of,
    model_part,
    replaces_size,
    setting_infos,
)
from launcher.config.settings_file import Unreadable, parse_yaml_value, read_lines
from models.catalog import FAMILIES, Stage, is_custom, split_model_name, stages_of

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base

STAGES = "stages"
MODEL_CHOICES = ("model.family", "model.size", TASK_FOLDER)
CHOICES = (*MODEL_CHOICES, "mode", STAGES, "limits.profile", "engine.name")
"""Settings that decide which shipped files are read, and where a custom task is searched."""
COMMAND_LINE = 1000
"""Position of the command line in the order of diagnostics: after all files."""
Layer = Sequence[TypedEntry]
"""The entries of one source, all with the same layer in their origins."""


class UserSettings(NamedTuple):
    """What the user set, lowest first: a mode file, the files of --config, and arguments."""

    layers: Sequence[Layer]
    """The last one is the arguments, whose values are texts: types depend on the family."""
    diagnostics: Sequence[Diagnostic]
    """Files that cannot be read, and arguments that set nothing."""

    def read_for(self, family: str = FIRST_RUN[0]) -> UserSettings:
        """With the values of the arguments, as the types of the family read their texts."""
        infos, *files = setting_infos(family), *self.layers[:-1]
        wrong, arguments = list(self.diagnostics), list[TypedEntry]()
        for entry in self.layers[-1]:
            try:
                arguments.append(_with_value(entry, infos.get(entry.key)))
            except Unreadable as error:
                message = f"{entry.origin.where} cannot be read: {error.problem}"
                wrong.append(errors.about_entry(entry, message, key=None, value=None))
        return UserSettings([*files, arguments], wrong)

    @property
    def highest(self) -> dict[str, TypedEntry]:
        """The entry of the highest layer for each key."""
        return {entry.key: entry for layer in self.layers for entry in layer}


@lru_cache(maxsize=8)
def read_user(args: CliArgs) -> UserSettings:
    """The settings among the arguments, and of the files that they name. Reads each file once."""
    wrong: list[Diagnostic] = []

    def file(layer: str, path: Path, position: int, option: str) -> list[TypedEntry]:
        try:
            return entries(layer, read_lines(path, option), position)
        except SettingsError as error:
            wrong.extend(
                replace(d, order=(position, d.order[1] if d.order else 0)) for d in error.diagnostics
            )
            return []

    # A mode of the user's own is above the one that it names.
    mode = [] if args.mode_file is None else file(MODE_LAYER, args.mode_file, COMMAND_LINE, "--mode")
    for entry in mode:
        if entry.key in MODEL_CHOICES:
            allowed = "--model and --set on the command line"
            message = f"a mode file cannot set {entry.key}"
            wrong.append(errors.about_entry(entry, message, allowed=allowed, fix="remove it"))
    mode = [entry for entry in mode if entry.key not in (*MODEL_CHOICES, "sentence")]
    files = [file(FILES_LAYER, path, n, "--config") for n, path in enumerate(args.configs)]
    return UserSettings([mode, *files, list(_arguments(args, wrong))], wrong)


def _arguments(args: CliArgs, wrong: list[Diagnostic]) -> Iterator[TypedEntry]:
    """The settings on the command line; for one key the later entry counts."""
    typed: list[tuple[str, str, str, str]] = []  # key, text, option, argument
    if args.model is not None:
        family, size = split_model_name(args.model)
        typed.append(("model.family", family, "--model", f"--model {args.model}"))
        if size or args.model.endswith(":"):
            typed.append(("model.size", size, "--model", f"--model {args.model}"))
    if args.mode is not None and args.mode_file is None:  # --mode NAME, --fast, --stage NAME
        is_long = args.mode_option == "--mode"
        typed.append(("mode", args.mode, "--mode", f"--mode {args.mode}" if is_long else args.mode_option))
    options = (
        args.options if args.engine is None else {"engine.name": ("--engine", args.engine), **args.options}
    )
    typed += [(key, text, name, f"{name} {text}") for key, (name, text) in options.items()]
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
        yield TypedEntry(key, text, origin, option, (COMMAND_LINE, number))
    for implied in args.filled:
        yield replace(implied, order=(COMMAND_LINE, len(typed) + 1))


def _with_value(entry: TypedEntry, info: SettingInfo | None) -> TypedEntry:
    """An argument with the value of its text: as typed if the setting is a text, else YAML.

    The brackets of a list of texts may be left out. Raises Unreadable.
    """
    text = entry.value
    if entry.option is None or not isinstance(text, str):
        return entry
    if info is None or info.type in ("text", "one of"):
        is_null = info is not None and info.nullable and text in ("null", "~")
        return replace(entry, value=None) if is_null else entry
    if info.type == "true or false" and text == "true" and entry.option != "--set":
        entry = replace(entry, origin=replace(entry.origin, where=str(entry.option)))
    if info.type == "list of texts" and not text.startswith("["):
        return replace(entry, value=[item.strip() for item in text.split(",")])
    return replace(entry, value=parse_yaml_value(text))


@dataclass(frozen=True)
class Choice:
    """What decides which layers there are; an invalid choice is None."""

    user: UserSettings
    """What the user set, with values of the family's types."""
    family: str
    file: presets.FamilyFile
    """The shipped file of the family, or what a custom task's class declares."""
    size: str | None
    mode: str | None
    engine: str | None
    model_named: bool
    diagnostics: Sequence[Diagnostic] = ()
    """Errors of a custom task that cannot be used; `family` is then another one."""
    stages: Sequence[str] = ()
    """The value of `stages`."""
    stage: str | None = None
    """The only stage to train; None: another mode, or several stages."""
    profile: str | None = None
    """None: the default, which changes nothing."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The settings with a block of their own in the family's file that have a value."""

    @property
    def model(self) -> str | None:
        """The name of the model within its family."""
        return model_part(self.family, self.size, self.given.get(PRETRAINED))


def choose(args: CliArgs, base: Base | None = None) -> Choice:
    """The family, size, mode and engine, each from the highest layer that sets it.

    A resumed run keeps family, size and mode of its `base`; a different one of the user is reported
    later, with all other differences. A custom task is loaded here. Reads settings files.
    """
    user = read_user(args)
    typed = user.read_for().highest
    if base is not None:  # the engine, and the folder of a task, are those of the new arguments
        before = base.chosen(CHOICES)
        now = {key: typed[key] for key in ("engine.name", TASK_FOLDER) if key in typed}
        typed = {**typed, **before, **now}

    def valid(key: str, options: Any, default: str | None = None) -> str | None:
        if (entry := typed.get(key)) is None:
            return default
        return entry.value if isinstance(entry.value, str) and entry.value in options else None

    name, diagnostics = typed.get("model.family"), list[Diagnostic]()
    family = valid("model.family", FAMILIES, FIRST_RUN[0]) or FIRST_RUN[0]
    file = presets.family(family)
    if name is not None and isinstance(name.value, str) and is_custom(name.value):
        task, diagnostics = _custom_task(name, typed)
        family, file = (family, file) if task is None else (name.value, task.file)
    user = user.read_for(family)
    # The settings with a block of their own; one without effect does not count.
    infos, lines = setting_infos(family), [line.key for line in file.lines]
    keys = [key for key in infos if any(line.startswith(f"given.{key}.") for line in lines)]
    of_base = {} if base is None else base.chosen(keys)
    values = {key: entry.value for key, entry in (of_base | user.highest).items() if key in keys}
    values = {key: value for key, value in values.items() if value is not None}
    given = {key: value for key, value in values.items() if {*infos[key].unless} <= {*values}}
    is_replaced = replaces_size(family, given.get(PRETRAINED))
    named = "model.family" in typed or "model.size" in typed or is_replaced
    mode = valid("mode", presets.modes(), "default")
    sizes = tuple(config_of(family).SIZES)
    size = valid("model.size", sizes)
    if "model.size" not in typed and sizes:
        size = _default_size(file, mode, sizes, named)
    names = typed[STAGES].value if STAGES in typed else None
    stages = [each for each in names if isinstance(each, str)] if isinstance(names, list) else []
    known = {stage.name for stage in declared_stages(family)}
    return Choice(
        user=user,
        family=family,
        file=file,
        size=None if is_replaced else size,
        mode=mode,
        engine=valid("engine.name", ENGINES),
        model_named=named,
        diagnostics=diagnostics,
        stages=stages,
        stage=stages[0] if mode == STAGED_MODE and len(stages) == 1 and known.issuperset(stages) else None,
        profile=valid("limits.profile", presets.profiles()),
        given=given,
    )


def _custom_task(name: TypedEntry, typed: Mapping[str, TypedEntry]) -> tuple[Any, list[Diagnostic]]:
    """What the class of the task `name` declares, None if it cannot be used; and errors."""
    from launcher.config import custom_task  # for the runs that train one

    folder = typed.get(TASK_FOLDER)
    try:
        if folder is not None and folder.option is None:  # of a file, which is data
            file, where = folder.origin.where.rpartition(":")[0], errors.where(TASK_FOLDER, folder.origin)
            path = custom_task.folder_for(name.value, folder.value, Path(file), where)
            folder = replace(folder, value=path)
        if folder is not None and (impossible := errors.impossible_path(folder)):
            return None, [impossible]
        custom_task.add_search_folder(folder and folder.value)
        declared = config_of(name.value)
    except SettingsError as error:
        return None, errors.custom_task_errors(error, name)
    wrong = []
    if not declared.SIZES and (size := typed.get("model.size")) is not None:
        message = f"{name.value} has no sizes, so size {size.value!r} cannot be chosen"
        wrong.append(errors.about_entry(size, message))
    home = custom_task.task_folder(name.value)
    if folder is not None and folder.value is not None and os.path.realpath(folder.value) != home:
        message = f"{name.value} is loaded from {home or 'an installed package'}, not from {folder.value}"
        wrong.append(errors.about_entry(folder, message, allowed="the folder of the module"))
    return declared, wrong


def _default_size(file: presets.FamilyFile, mode: str | None, sizes: Sequence[str], named: bool) -> str:
    """The size of the family's file, or of a first run, after what the mode makes of it."""
    default = {line.key: line.value for line in (*file.block("default"), *file.block("declared"))}
    size: str = FIRST_RUN[1]
    if named:
        size = default["model.size"] if default.get("model.size") in sizes else sizes[0]
    changed = size
    for line in (*presets.mode(mode).lines, *file.block("modes", mode)) if mode else ():
        if line.key == "model.size":
            is_change = presets.is_change(line.value)
            changed = presets.apply_change(line.value, size, sizes)[0] if is_change else line.value
    return changed


def declared_stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family or of a custom task. Raises SettingsError."""
    stages: tuple[Stage, ...] = config_of(family).stages if is_custom(family) else stages_of(family)
    return stages


def without_first_weights(resolved: Resolved) -> Resolved:
    """`resolved` without the weights that its stages start with: their values do not matter."""
    settings = resolved.settings
    stages = [stage for stage in declared_stages(settings.model.family) if stage.name in settings.stages]
    fields = {stage.loads.removeprefix("model."): None for stage in stages if stage.loads is not None}
    model = settings.model.model_copy(update=fields)
    return replace(resolved, settings=settings.model_copy(update={"model": model}))


def select_stages(names: Sequence[str], known: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with these names, in declared order; without names all that are not optional."""
    return tuple(stage for stage in known if (stage.name in names if names else not stage.optional))
