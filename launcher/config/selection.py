"""What the user typed, in files and arguments, and the family, size, mode and engine that it chooses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.config import errors, presets
from gearshift.launcher.config.presets import TASK_FOLDER, Preset
from gearshift.launcher.config.provenance import (
    CLI_LAYER,
    COMMAND_LINE,
    DEFAULT_MODE,
    FILES_LAYER,
    MODE_LAYER,
    RESUMED_LAYER,
    STAGED_MODE,
    CliArgs,
    Origin,
    Setting,
    Values,
    layer_of,
)
from gearshift.launcher.config.schema import (
    FIRST_RUN,
    PRETRAINED,
    SettingInfo,
    config_of,
    model_part,
    replaces_size,
    setting_infos,
)
from gearshift.launcher.config.settings_file import Unreadable, parse_yaml_value, read_lines
from gearshift.models.catalog import FAMILIES, Stage, is_custom, split_model_name, stages_of

if TYPE_CHECKING:
    from gearshift.launcher.config.resumed_settings import Base

STAGES = "stages"
MODEL_CHOICES = ("model.family", "model.size", TASK_FOLDER)
CHOICES = (*MODEL_CHOICES, "mode", STAGES, "limits.profile", "engine.name")
"""Settings that decide which shipped files are read, and where a custom task is searched."""


@lru_cache(maxsize=8)
def read_user(args: CliArgs) -> tuple[list[Values], list[Diagnostic]]:
    """The layers of the user, lowest first, and the errors of files and arguments. Reads each file once.

    A mode file, the files of --config, and the arguments: their values are texts, since types
    depend on the family.
    """
    wrong: list[Diagnostic] = []

    def file(layer: str, path: Path, position: int, option: str) -> Values:
        try:
            return layer_of(layer, read_lines(path, option), position)
        except SettingsError as error:
            wrong.extend(
                replace(diagnostic, order=(position, 0)) for diagnostic in error.diagnostics
            )
            return {}

    # A mode of the user's own is above the one that it names.
    mode = (
        {} if args.mode_file is None else file(MODE_LAYER, args.mode_file, COMMAND_LINE, "--mode")
    )
    for key in [key for key in MODEL_CHOICES if key in mode]:
        allowed = "--model and --set on the command line"
        wrong.append(
            errors.about(
                mode, key, f"a mode file cannot set {key}", allowed=allowed, fix="remove it"
            )
        )
    mode = {
        key: setting for key, setting in mode.items() if key not in (*MODEL_CHOICES, "sentence")
    }
    files = [file(FILES_LAYER, path, n, "--config") for n, path in enumerate(args.configs)]
    # For one key the later argument counts: key, text, argument.
    typed: list[tuple[str, str, str]] = []
    if args.model is not None:
        family, size = split_model_name(args.model)
        typed.append(("model.family", family, f"--model {args.model}"))
        if size or args.model.endswith(":"):
            typed.append(("model.size", size, f"--model {args.model}"))
    if args.mode is not None and args.mode_file is None:  # --mode NAME, --fast, --stage NAME
        is_long = args.mode_option == "--mode"
        typed.append(("mode", args.mode, f"--mode {args.mode}" if is_long else args.mode_option))
    if args.engine is not None:
        typed.append(("engine.name", args.engine, f"--engine {args.engine}"))
    for key, (option, text) in args.options.items():
        typed.append((key, text, option if text == "true" else f"{option} {text}"))
    for text in args.sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            typed.append((key.strip(), value, f"--set {text}"))
        else:
            message = f"--set {text} has no value"
            form = "--set KEY=VALUE; for example  --set optim.lr=1e-3"
            order = (COMMAND_LINE, len(typed))
            wrong.append(Diagnostic(message, where=f"--set {text}", allowed=form, order=order))
    settings = {
        key: Setting(text, Origin(CLI_LAYER, redact(argument), order=(COMMAND_LINE, number)))
        for number, (key, text, argument) in enumerate(typed, 1)
    }
    return [mode, *files, {**settings, **args.filled}], wrong


def highest(layers: Sequence[Values]) -> dict[str, Setting]:
    """The setting of the highest layer for each key."""
    return {key: setting for layer in layers for key, setting in layer.items()}


def _with_value(setting: Setting, info: SettingInfo | None) -> Setting:
    """An argument with the value of its text: as typed if the setting is a text, else YAML.

    The brackets of a list of texts may be left out. Raises Unreadable.
    """
    text = setting.value
    origin = setting.origin
    if origin.layer != CLI_LAYER or not isinstance(text, str):
        return setting
    if info is None or info.type in ("text", "one of"):
        is_null = info is not None and info.nullable and text in ("null", "~")
        return Setting(None if is_null else text, origin)
    if info.type == "list of texts" and not text.startswith("["):
        return Setting([item.strip() for item in text.split(",")], origin)
    return Setting(parse_yaml_value(text), origin)


@dataclass(frozen=True)
class Choice:
    """What decides which layers there are; an invalid choice is None."""

    users: Sequence[Values]
    """The layers of the user, with values of the family's types; the first is a mode file."""
    family: str
    file: Preset
    """The shipped file of the family, or what a custom task's class declares."""
    size: str | None
    mode: str | None
    engine: str | None
    model_named: bool
    invalid: Sequence[Diagnostic] = ()
    """Errors of files and arguments."""
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
    (*files, arguments), invalid = read_user(args)
    before = {} if base is None else base.chosen(CHOICES)

    def counting(layers: Sequence[Values]) -> dict[str, Setting]:
        """The settings that count: of new arguments the engine, and the folder of a task."""
        new = highest(layers)
        return {
            **new,
            **before,
            **{key: new[key] for key in ("engine.name", TASK_FOLDER) if key in new},
        }

    typed = counting([*files, arguments])

    def valid(key: str, options: Any, default: str | None = None) -> str | None:
        if key not in typed:
            return default
        value = typed[key].value
        return value if isinstance(value, str) and value in options else None

    name = typed["model.family"].value if "model.family" in typed else None
    diagnostics = list[Diagnostic]()
    family = valid("model.family", FAMILIES, FIRST_RUN[0]) or FIRST_RUN[0]
    if isinstance(name, str) and is_custom(name):
        diagnostics = _custom_task(name, typed)
        family = family if diagnostics else name
    infos = setting_infos(family)
    config = config_of(family)
    wrong = list(invalid)
    known: dict[str, Setting] = {}
    for key, setting in arguments.items():
        try:
            known[key] = _with_value(setting, infos.get(key))
        except Unreadable as error:
            message = f"{setting.origin.where} cannot be read: {error.args[0]}"
            wrong.append(errors.about(arguments, key, message, key=None, value=None))
    users = [*files, known]
    typed = counting(users)
    # The settings with a block of their own in the family's file; one without effect does not count.
    file = config.file if is_custom(family) else presets.family(family)
    blocks = [
        key for key in infos if any(line.key.startswith(f"given.{key}.") for line in file.lines)
    ]
    given = (highest(users) if base is None else {**base.chosen(blocks), **highest(users)}).items()
    values = {
        key: setting.value for key, setting in given if key in blocks and setting.value is not None
    }
    values = {key: value for key, value in values.items() if {*infos[key].unless} <= {*values}}
    is_named = not typed.keys().isdisjoint(MODEL_CHOICES[:2])
    is_named = is_named or replaces_size(family, values.get(PRETRAINED))
    mode = valid("mode", presets.modes(), DEFAULT_MODE)
    size = valid("model.size", config.SIZES)
    if "model.size" not in typed and config.SIZES:
        sizes = tuple(config.SIZES)
        shipped = {
            line.key: line.value for line in (*file.block("default"), *file.block("declared"))
        }
        default = size = shipped["model.size"] if shipped.get("model.size") in sizes else sizes[0]
        if not is_named:
            default = size = FIRST_RUN[1]
        for line in (*presets.mode(mode).lines, *file.block("modes", mode)) if mode else ():
            if line.key == "model.size":
                size, _ = presets.apply_change(line.value, default, sizes)
    names = typed[STAGES].value if STAGES in typed else None
    stages = [each for each in names if isinstance(each, str)] if isinstance(names, list) else []
    known_stages = [stage.name for stage in declared_stages(family)] if mode == STAGED_MODE else []
    return Choice(
        users=users,
        family=family,
        file=file,
        size=None if replaces_size(family, values.get(PRETRAINED)) else size,
        mode=mode,
        engine=valid("engine.name", ENGINES),
        model_named=is_named,
        invalid=wrong,
        diagnostics=diagnostics,
        stages=stages,
        stage=stages[0] if len(stages) == 1 and stages[0] in known_stages else None,
        profile=valid("limits.profile", presets.modes("profiles")),
        given=values,
    )


def _custom_task(name: str, typed: dict[str, Setting]) -> list[Diagnostic]:
    """Why the class of the task `name` cannot be used; empty: it can. Loads it."""
    from gearshift.launcher.config import custom_task  # for the runs that train one

    folder = typed.get(TASK_FOLDER)
    try:
        if folder is not None and folder.origin.layer in (
            FILES_LAYER,
            RESUMED_LAYER,
        ):  # which are data
            file = folder.origin.where.rpartition(":")[0]
            where = errors.where(TASK_FOLDER, folder.origin)
            folder = replace(
                folder, value=custom_task.folder_for(name, folder.value, Path(file), where)
            )
        custom_task.add_search_folder(folder and folder.value)
        config_of(name)
    except SettingsError as error:
        return errors.custom_task_errors(error, typed)
    home = custom_task.task_folder(name)
    if folder is None or folder.value is None or os.path.realpath(folder.value) == home:
        return []
    message = f"{name} is loaded from {home or 'an installed package'}, not from {folder.value}"
    return [errors.about(typed, TASK_FOLDER, message, allowed="the folder of the module")]


def declared_stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family or of a custom task. Raises SettingsError."""
    stages: tuple[Stage, ...] = config_of(family).stages if is_custom(family) else stages_of(family)
    return stages


def select_stages(names: Sequence[str], known: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with these names, in declared order; without names all that are not optional."""
    return tuple(stage for stage in known if (stage.name in names if names else not stage.optional))
