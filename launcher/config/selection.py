"""What the user typed, the layers of settings, and the model, mode and engine that they choose."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, shown
from gearshift.launcher.base.disk import SHOWN, problem_of
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.config import presets
from gearshift.launcher.config.paths import PATHS
from gearshift.launcher.config.presets import TASK_FOLDER, Preset
from gearshift.launcher.config.provenance import (
    BUILT_IN_LAYER,
    CLI_LAYER,
    COMMAND_LINE,
    ENGINE_LAYER,
    FAMILY_LAYER,
    FILES_LAYER,
    MODE_LAYER,
    PROFILE_LAYER,
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
    config_of,
    is_known,
    model_part,
    read_text,
    replaces_size,
    sections,
    setting_infos,
    settings_class,
)
from gearshift.launcher.config.settings_file import Unreadable
from gearshift.models.catalog import FAMILIES, Stage, is_custom, split_model_name, stages_of
from gearshift.training.settings import nested

if TYPE_CHECKING:
    from gearshift.launcher.config.resumed_settings import Base

PROMISE = "promise"
STAGES = "stages"
_FAMILY = "model.family"
_SIZE = "model.size"
_ENGINE = "engine.name"
_PROFILE = "limits.profile"
_GIVEN = (PRETRAINED, "model.lora.rank")
"""Settings with a block `given` in a family's file; one has no effect without those before it."""
CHOICES = (_FAMILY, _SIZE, TASK_FOLDER, *_GIVEN, "mode", STAGES, _PROFILE, _ENGINE)
"""Settings that decide which shipped files are read, and where a custom task is searched."""
_NO_MODEL = Origin(FAMILY_LAYER, "no model named")
_CHANGED_NOTHING = frozenset(
    {
        "limits.cpu",
        "limits.disk",
        "limits.temperature",
        "limits.critical.disk",
        "limits.critical.temperature",
    }
)
"""Settings of earlier versions that no training depended on: a run that had them is resumed."""

# What the user typed.


@lru_cache(maxsize=8)
def read_user(args: CliArgs) -> tuple[list[Values], list[Diagnostic]]:
    """The layers of the user, lowest first, and the errors of files and arguments.

    A mode file, the files of --config, and the arguments: their values are texts until they are
    stacked, since types depend on the family. Reads each file once.
    """
    wrong: list[Diagnostic] = []
    # A mode of the user's own is above the one that it names.
    mode: dict[str, Setting] = {}
    if args.mode_file is not None:
        mode = _read_file(MODE_LAYER, args.mode_file, "--mode", COMMAND_LINE, wrong)
    layers: list[Values] = [mode]
    for position, path in enumerate(args.configs):
        layers.append(_read_file(FILES_LAYER, path, "--config", position, wrong))

    entries = [*_options(args, wrong)]
    for text in args.sets:
        key, equals, value = text.partition("=")
        if equals and key.strip():
            entries.append((key.strip(), value, f"--set {text}"))
        else:
            diagnostic = Diagnostic(
                f"--set {text} has no value",
                where=f"--set {text}",
                allowed="--set KEY=VALUE",
                order=(COMMAND_LINE, len(entries)),
            )
            wrong.append(diagnostic)
    arguments = {}  # for one key the later argument counts
    for number, (key, text, argument) in enumerate(entries, 1):
        origin = Origin(CLI_LAYER, redact(argument), order=(COMMAND_LINE, number))
        arguments[key] = Setting(text, origin)
    layers.append({**arguments, **args.filled})
    return layers, wrong


def _read_file(
    layer: str, path: Path, option: str, position: int, wrong: list[Diagnostic]
) -> dict[str, Setting]:
    """The settings of a file of the user; its errors are added to `wrong`."""
    try:
        settings = layer_of(layer, presets.config_lines(path, option), position)
    except SettingsError as error:
        wrong += [replace(diagnostic, order=(position, 0)) for diagnostic in error.diagnostics]
        return {}
    settings.pop("sentence", None)  # what the file is for
    return settings


def _options(args: CliArgs, wrong: list[Diagnostic]) -> Iterator[tuple[str, Any, str]]:
    """Key, text and argument of each option that stands for a setting, but for --set.

    The error of a folder without a model is added to `wrong`.
    """
    if args.model is not None:
        family, size = split_model_name(args.model)
        settings = {_FAMILY: family}
        if size or args.model.endswith(":"):
            settings[_SIZE] = size
        if family not in FAMILIES and not is_custom(family):
            from gearshift.launcher.config import named_model  # for the runs that name weights

            try:
                settings = named_model.settings_of(args.model) or settings
            except SettingsError as error:
                wrong += error.diagnostics
                settings = {}
        for key, text in settings.items():
            yield key, text, f"--model {args.model}"
    if args.mode is not None and args.mode_file is None:  # --mode NAME, --fast, --stage NAME
        is_named = args.mode_option == "--mode"
        yield "mode", args.mode, f"--mode {args.mode}" if is_named else args.mode_option
    if args.engine is not None:
        yield _ENGINE, args.engine, f"--engine {args.engine}"
    for key, (option, *texts) in args.options.items():
        typed = " ".join(f"{option} {text}" for text in texts)
        value = texts[0] if len(texts) == 1 else texts
        yield key, value, option if value == "true" else typed


def errors() -> ModuleType:
    """The module of errors of settings, which a good run does not need."""
    from gearshift.launcher.config import errors

    return errors


def input_errors() -> ModuleType:
    """The module of errors of names and values, likewise."""
    from gearshift.launcher.config import input_errors

    return input_errors


# The choice.


@dataclass(frozen=True)
class Choice:
    """What decides which layers there are; a lower layer counts where a choice is invalid."""

    users: Sequence[Values]
    """The layers of the user; the first is a mode file."""
    family: str
    file: Preset
    """The shipped file of the family, or what a custom task's class declares."""
    model_named: bool
    invalid: Sequence[Diagnostic]
    """Errors of files and arguments."""
    diagnostics: Sequence[Diagnostic]
    """Errors of a custom task that cannot be used; `family` is then another one."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The settings with a block of their own in the family's file that have a value."""
    size: str | None = None
    mode: str | None = None
    engine: str | None = None
    stages: Sequence[str] = ()
    """The value of `stages`."""
    stage: str | None = None
    """The only stage to train; None: another mode, or several stages."""
    profile: str | None = None
    """None: the default, which changes nothing."""

    @property
    def model(self) -> str | None:
        """The name of the model within its family."""
        return model_part(self.family, self.size, self.given.get(PRETRAINED))


def choose(args: CliArgs, base: Base | None = None) -> Choice:
    """The family, size, mode and engine, each from the highest layer that sets it.

    A resumed run keeps family, size and mode of its `base`; a different one of the user is reported
    later, with all other differences. A custom task is loaded here. Reads settings files.
    """
    layers, invalid = read_user(args)
    counting = _counting(layers, base)
    typed = highest(counting)
    family = FIRST_RUN[0]
    diagnostics: list[Diagnostic] = []
    if _FAMILY in typed:
        name = str(typed[_FAMILY].value)
        if is_custom(name):
            diagnostics = _custom_task(name, typed)
        if name in FAMILIES or (is_custom(name) and not diagnostics):
            family = name
    choice = Choice(
        users=layers,
        family=family,
        file=config_of(family).file if is_custom(family) else presets.family(family),
        model_named=_FAMILY in typed or _SIZE in typed,
        invalid=invalid,
        diagnostics=diagnostics,
    )
    # A layer may choose what brings further layers: a mode another size, the engine its settings.
    for _ in CHOICES:
        before = choice
        choice = _stacked(choice, counting)
        if choice == before:
            break
    return choice


def _counting(users: Sequence[Values], base: Base | None) -> list[Values]:
    """The layers of the user that choose; of new ones beside a resumed run few settings do."""
    if base is None:
        return list(users)
    new = highest(users)
    changeable = {key: new[key] for key in (_ENGINE, TASK_FOLDER) if key in new}
    return [*users, base.chosen(CHOICES), changeable]


def _stacked(choice: Choice, counting: Sequence[Values]) -> Choice:
    """The choice of the layers that `choice` brings, below those of the user."""
    family = choice.family
    values = built_in(family)
    # Errors are reported by `resolve`.
    stack(family, values, [*shipped_layers(choice), *counting], CHOICES)
    now = {key: values[key].value for key in CHOICES if key in values}
    given: dict[str, Any] = {}
    for key in _GIVEN:
        if now.get(key) is None:
            break
        given[key] = now[key]
    stages = now.get(STAGES) or []
    is_one = now.get("mode") == STAGED_MODE and len(stages) == 1
    engine = now.get(_ENGINE)
    profile = now.get(_PROFILE)
    return replace(
        choice,
        given=given,
        size=None if replaces_size(family, given.get(PRETRAINED)) else now.get(_SIZE),
        mode=now.get("mode"),
        engine=engine if engine in ENGINES else None,
        stages=stages,
        stage=stages[0] if is_one else None,
        profile=None if profile == "default" else profile,
    )


def _custom_task(name: str, settings: dict[str, Setting]) -> list[Diagnostic]:
    """Why the class of the task `name` cannot be used; empty: it can. Loads it."""
    from gearshift.launcher.config import custom_task, errors  # for the runs that train one

    folder = settings.get(TASK_FOLDER)
    try:
        # Files of the user and of a run are data: they do not decide what is imported.
        if folder is not None and folder.origin.layer != CLI_LAYER:
            file = folder.origin.where.rpartition(":")[0]
            where = errors.where(TASK_FOLDER, folder.origin)
            path = custom_task.folder_for(name, folder.value, Path(file), where)
            folder = replace(folder, value=path)
        custom_task.add_search_folder(folder and folder.value)
        config_of(name)
    except SettingsError as error:
        return [*errors.of_value(settings, _FAMILY, error, name)]
    home = custom_task.task_folder(name)
    if folder is None or folder.value is None or os.path.realpath(folder.value) == home:
        return []
    message = f"{name} is loaded from {home or 'an installed package'}, not from {folder.value}"
    return [errors.about(settings, TASK_FOLDER, message, allowed="the folder of the module")]


def declared_stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family or of a custom task. Raises SettingsError."""
    stages: tuple[Stage, ...] = config_of(family).stages if is_custom(family) else stages_of(family)
    return stages


def select_stages(names: Sequence[str], known: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with these names, in declared order; without names all that are not optional."""
    if names:
        return tuple(stage for stage in known if stage.name in names)
    return tuple(stage for stage in known if not stage.optional)


# The layers.


def highest(layers: Iterable[Values]) -> dict[str, Setting]:
    """The setting of the highest layer for each key."""
    return {key: setting for layer in layers for key, setting in layer.items()}


def built_in(family: str) -> dict[str, Setting]:
    """The lowest layer: the defaults of the schema."""
    origin = Origin(BUILT_IN_LAYER, BUILT_IN_LAYER)
    return {key: Setting(info.default, origin) for key, info in setting_infos(family).items()}


def shipped_layers(choice: Choice) -> Iterator[Values]:
    """The layers of family, mode, limits profile and engine, above the built-in one.

    The mode file of the user is between those of the mode and the profile.
    """
    file = choice.file
    size = choice.size or ""
    yield layer_of(FAMILY_LAYER, file.block("default"))
    declared = layer_of(FAMILY_LAYER, file.block("declared"))
    max_steps = declared.get("train.max_steps")
    if max_steps is not None and max_steps.value is not None:
        # The limit of steps of a custom task overrides the epochs of all such tasks.
        declared.setdefault("train.epochs", replace(max_steps, value=None))
    yield declared
    if not choice.model_named and PRETRAINED not in choice.given:
        yield {_SIZE: Setting(FIRST_RUN[1], _NO_MODEL)}
    yield layer_of(FAMILY_LAYER, file.block("sizes", size))
    for key in choice.given:
        yield layer_of(FAMILY_LAYER, file.block("given", key))
    yield _general(MODE_LAYER, "modes", choice.mode, choice.family)
    for kind, name in (("modes", choice.mode), ("stages", choice.stage)):
        if name is not None:
            yield layer_of(MODE_LAYER, file.block(kind, name))
            yield layer_of(MODE_LAYER, file.block("sizes", size, kind, name))
    yield choice.users[0]
    yield _general(PROFILE_LAYER, "profiles", choice.profile, choice.family)
    if choice.engine is not None:
        origin = Origin(ENGINE_LAYER, f"engine {choice.engine}")
        settings = ENGINES[choice.engine].settings
        yield {key: Setting(value, origin) for key, value in settings.items()}


def _general(layer: str, folder: str, name: str | None, family: str) -> Values:
    """The settings of a file for all families, but those that this one does not have."""
    if name is None:
        return {}
    infos = setting_infos(family)
    return layer_of(layer, [line for line in presets.mode(name, folder).lines if line.key in infos])


def stack(
    family: str,
    values: dict[str, Setting],
    layers: Iterable[Values],
    keys: Collection[str] | None = None,
) -> list[Diagnostic]:
    """Put `layers` on top of `values`, lowest first; the errors in them. None: all `keys`.

    An invalid value is left out, so that all errors of one start are found together; one that is
    overridden is no error. What a mode
    changes is the default below all layers of modes.
    """
    infos = setting_infos(family)
    sizes = tuple(config_of(family).SIZES)
    below_modes: dict[str, Setting] = {}
    invalid: list[Diagnostic] = []
    layers = list(layers)
    for number, layer in enumerate(layers, 1):
        name = next((setting.origin.layer for setting in layer.values()), None)
        if name == MODE_LAYER and not below_modes:
            below_modes = dict(values)
        below = below_modes if name == MODE_LAYER else values
        for key, setting in layer.items():
            if keys is not None and key not in keys:
                continue
            if key not in infos:
                # An empty section, or a setting of an earlier version that had no value.
                is_gone = name == RESUMED_LAYER or key in sections(family)
                changed_nothing = name == RESUMED_LAYER and key in _CHANGED_NOTHING
                if not changed_nothing and (setting.value is not None or not is_gone):
                    invalid.append(input_errors().unknown_key(family, layer, key))
                continue
            if name in (MODE_LAYER, PROFILE_LAYER):
                from gearshift.launcher.config.scaled_change import apply_change

                value, how = apply_change(setting.value, below[key].value, sizes)
                setting = Setting(value, replace(setting.origin, how=how))
            value, wrong = _read(family, key, setting, values[key])
            if wrong:
                # What is typed corrects a file.
                if name != FILES_LAYER or not any(key in above for above in layers[number:]):
                    invalid += wrong
                continue
            if key == PROMISE:
                value = {**values[key].value, **value}
            values[key] = values[key].overridden(value, setting.origin)
    return invalid


def _read(
    family: str, key: str, setting: Setting, below: Setting
) -> tuple[Any, Collection[Diagnostic]]:
    """The value of a setting as the schema reads it, and the errors in it.

    `below` is what it overrides.
    """
    info = setting_infos(family)[key]
    if setting.origin.layer == CLI_LAYER and isinstance(setting.value, str):
        try:
            setting = replace(setting, value=read_text(info, setting.value))
        except Unreadable as error:
            message = f"{setting.origin.where} cannot be read: {error.args[0]}"
            return None, [errors().about({key: setting}, key, message, key=None, value=None)]
    text = str(setting.value)
    problem = problem_of(text) if key in PATHS else None
    if problem:
        message = f"{errors().display_name(key)} {shown(text[:SHOWN])} {problem}"
        return None, [errors().about({key: setting}, key, message)]
    failures: list[Mapping[str, Any]] = []
    try:
        tree = settings_class(family).model_validate(nested({key: setting.value}), strict=True)
    except ValidationError as error:
        # Without any of this setting, a custom task rejects several together: see `resolve`.
        failures = [{**each} for each in error.errors() if len(each["loc"]) > key.count(".")]
        if not failures:
            return setting.value, ()
        number = setting.value
        is_whole = isinstance(number, float) and number.is_integer()  # as 1e3
        if is_whole and failures[0]["type"] == "int_type":
            return _read(family, key, replace(setting, value=int(number)), below)
    if not failures and not is_known(info, setting.value):
        failures = [{"type": "unknown", "loc": (), "msg": "should be known"}]
    if failures:
        first: dict[str | None, Diagnostic] = {}
        for failure in failures:
            diagnostic = input_errors().rejected(info, setting, failure, below)
            first.setdefault(diagnostic.key, diagnostic)
        return None, first.values()
    value: Any = tree.model_dump(exclude_unset=True, by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value, ()
