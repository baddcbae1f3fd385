"""Errors of what was typed: unknown names, values that the schema rejects, and wrong arguments."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import (
    PROGRAM,
    Diagnostic,
    listed,
    nearest_match,
    plain,
    shown,
)
from gearshift.launcher.config import other_tools, presets
from gearshift.launcher.config.command_line import (
    BY_FLAG,
    DEFAULT,
    HELP,
    Command,
    command_line_error,
)
from gearshift.launcher.config.errors import about, allowed, display_name
from gearshift.launcher.config.named_model import name_of_hub, nearest_name_of_hub, settings_around
from gearshift.launcher.config.other_tools import Meaning
from gearshift.launcher.config.provenance import (
    BUILT_IN_LAYER,
    CLI_LAYER,
    ResetPart,
    Setting,
    Values,
)
from gearshift.launcher.config.schema import (
    AUTO,
    SettingInfo,
    config_of,
    is_known,
    read_text,
    sections,
    setting_infos,
    settings_class,
)
from gearshift.launcher.config.settings_file import Unreadable
from gearshift.models.catalog import FAMILIES, stages_of
from gearshift.training.settings import TRACKERS, nested


def wrong_positionals(command: Command, positionals: Sequence[str]) -> Iterator[Diagnostic]:
    """The errors of arguments that are no options: too many, unknown or missing ones."""
    options = f"options; see  {command.call} --help"
    if positionals and command.reader is not None:
        words = shlex.join(positionals)
        yield command_line_error(
            f"{command.name} takes no runs",
            words,
            value=words,
            allowed=options,
            fix=f"{PROGRAM} {command.reader} {words}",
        )
        return
    argument = next(iter(positionals), "")
    for surplus in positionals[command.most_positionals(argument) :]:
        option = _option_for(surplus)
        yield command_line_error(
            f"unexpected argument '{surplus}'",
            surplus,
            value=surplus,
            allowed=options,
            fix=option and f"{option} {shlex.quote(surplus)}",
            replaces=(surplus,),
        )
    choices = ", ".join(command.choices)
    operand = command.operands.get(argument, "[]")
    if argument and command.choices and argument not in command.choices:
        nearest = nearest_match(argument, command.choices)
        yield command_line_error(
            f"unknown {command.argument.strip('[]')} {argument!r}",
            f"{command.name} {argument}",
            value=argument,
            allowed=choices,
            did_you_mean=nearest,
            fix=nearest,
            replaces=(argument,),
        )
    elif not positionals and not command.argument.startswith("["):
        yield command_line_error(
            f"{command.name} requires {command.argument.removesuffix('...')}",
            command.name,
            allowed=choices or command.allowed,
        )
    elif len(positionals) == 1 and not operand.startswith("["):
        call = f"{command.name} {argument}"
        yield command_line_error(
            f"{call} requires {operand}", call, allowed=f"{PROGRAM} {call} {operand}"
        )


def _option_for(argument: str) -> str | None:
    """The option that takes an argument that stands alone, if that is clear. Reads the disk."""
    if argument.partition("=")[0] in names("keys"):
        return "--set"
    if argument.partition(":")[0] in FAMILIES:
        return "--model"
    path = Path(argument).expanduser()
    if path.is_file():
        return "--config" if path.suffix in (".yaml", ".yml") else "--data"
    if path.is_dir():
        is_model = (path / "config.json").is_file() or settings_around(path)
        return "--model" if is_model else "--data"
    return "--model" if name_of_hub(argument) else None


def unknown_option(command: Command, words: Sequence[str]) -> Diagnostic:
    """The error of an unknown option; the second of its `words` is most likely its value.

    One of the program that the command passes options to belongs after `--`; a setting is its own
    option, or --set.
    """
    argument = words[0]
    flag, _, value = argument.partition("=")
    value = words[-1] if len(words) > 1 else value
    known = (*command.options, HELP)
    # What each name stands for, up to its value: `--set optim.lr=`, `--epochs `, `--fast`.
    forms = {name: f"{other} " for name, other in command.instead.items()}
    for option in known:
        forms[option.flag] = f"{option.flag} " if option.metavar else option.flag
    if command.passthrough is not None:
        from gearshift.slurm.sbatch import option_of

        name = option_of(argument)
        if name is not None and f"--{name}" not in forms:
            return command_line_error(
                f"option '{flag}' belongs to {command.passthrough}, not to {command.name}",
                argument,
                value=argument,
                fix=f"-- {shlex.join(words)}",
                replaces=(flag,),
            )
    keys = names("keys")
    meaning = None
    if flag not in command.instead and ("." not in flag or flag.lstrip("-") not in keys):
        meaning = other_tools.meaning(flag, value)
    if meaning is None:
        form = forms.get(nearest_match(flag, forms) or "")
        if form is None and "--set" in forms:
            key = nearest_key(flag.lstrip("-"), keys)
            form = key and f"--set {key}="
        if form is not None:
            fix: str | None = form
            if form.endswith((" ", "=")):
                fix = form + shlex.quote(value) if value else None
            meaning = Meaning(fix, shown=form.rstrip(" ="))
    error = command_line_error(
        f"unknown option '{flag}'",
        argument,
        value=flag,
        allowed=f"{len(known)} options; see  {command.call} --help",
    )
    return _with_meaning(error, meaning, flag)


def _with_meaning(diagnostic: Diagnostic, meaning: Meaning | None, typed: str) -> Diagnostic:
    """The diagnostic with what `typed` means; without a fix whose value the setting rejects."""
    if meaning is None:
        return diagnostic
    fix = meaning.fix
    options = diagnostic.allowed
    for key, text in other_tools.settings_in(fix or ""):
        family = next((name for name in FAMILIES if key in setting_infos(name)), None)
        if family is None:
            continue
        info = setting_infos(family)[key]
        try:
            value = read_text(info, text)
            settings_class(family).model_validate(nested({key: value}), strict=True)
            is_valid = is_known(info, value)
        except (Unreadable, ValidationError):
            is_valid = False
        if not is_valid:
            fix = None
            options = allowed(info)
    return replace(
        diagnostic,
        allowed=options,
        did_you_mean=meaning.shown,
        fix=fix,
        replaces=(typed,),
        hint=meaning.hint,
    )


def unknown_key(family: str, layer: Values, key: str) -> Diagnostic:
    """A key of `layer` that does not exist, or a section that is given a value."""
    infos = setting_infos(family)
    known_sections = sections(family)
    section = key.rpartition(".")[0]
    setting = layer[key]
    text = plain(setting.value)
    suggestion = None
    meaning = other_tools.meaning(key, text)
    if key in known_sections:
        section = key
    elif section in infos and infos[section].type == "mapping":
        suggestion = section
    elif meaning is None:
        suggestion = nearest_key(key, infos)
    if suggestion is not None:
        line = f"--set {shlex.quote(f'{suggestion}={text}')}"
        meaning = Meaning(line, shown=suggestion)
    if section not in known_sections:
        section = ""
    paths = [name.rpartition(".") for name in (*infos, *known_sections)]
    here = listed([last for parent, _, last in paths if parent == section], "explain")
    diagnostic = about(layer, key, f"unknown setting '{key}'", allowed=here)
    diagnostic = _with_meaning(diagnostic, meaning, key)
    fix = diagnostic.fix
    if fix is None or setting.origin.layer == CLI_LAYER:
        return diagnostic
    # In a file its line is another one.
    lines = [f"{key}: {text}" for key, text in other_tools.settings_in(fix)]
    hint = f"in {setting.origin.where}:  {', '.join(lines) or fix or 'remove it'}"
    return replace(diagnostic, fix=None, hint=hint)


def nearest_key(name: str, keys: Collection[str]) -> str | None:
    """The setting among `keys` that was misspelt; without a section, by its last part alone.

    A short option may stand for its setting: --set batch_size=4.
    """
    match = nearest_match(name, keys)
    if match is not None or "." in name:
        return match
    count = Counter(key.rpartition(".")[2] for key in keys)
    # Of several settings, which one is unknown.
    named: dict[str, str | None] = {}
    for key in keys:
        last = key.rpartition(".")[2]
        if count[last] == 1:
            named[last] = key
    for flag, option in BY_FLAG.items():
        if option.key in keys:
            named[flag[2:]] = option.key
    match = nearest_match(name, named)
    return match and named[match]


def rejected(
    info: SettingInfo, setting: Setting, failure: Mapping[str, Any], below: Setting
) -> Diagnostic:
    """The error of a value, or of a part of it, from loc, type and ctx of pydantic's `failure`.

    `below` is the value that it overrides.
    """
    kind = failure["type"]
    path = info.key
    value = setting.value
    # Where in the value: an item of a list, or a name of a mapping.
    parts: Sequence[Any] = ()
    if "mapping" in info.type:
        parts = [part for part in failure["loc"][path.count(".") + 1 :] if part != "[key]"]
    if parts:
        value = failure["input"]
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    key = path if "[" in path else info.key

    suggestion = None
    overrides = None
    reason = failure.get("ctx", {}).get("error") or re.sub("^.*(?=should)", "", failure["msg"])
    if kind == "string_pattern_mismatch" or (kind == "value_error" and not parts):
        reason = "is not understood"
    message = f"{display_name(path)} {shown(value)} {reason}"
    if kind == "missing":
        message = f"{path} is missing"
    elif kind == "extra_forbidden" or "[key]" in failure["loc"]:
        message = f"unknown name '{path}'"
        suggestion = nearest_match(str(parts[-1]), re.findall(r"\w+", str(info.allowed)))
    elif not parts:
        if isinstance(value, str) and isinstance(info.allowed, tuple):
            message = f"unknown {display_name(path)} {shown(value)}"
        suggestion = _nearest_value(info, value, kind)
        if below.origin.layer != BUILT_IN_LAYER:
            overrides = (below.value, below.origin.where)
    return about(
        {key: setting},
        key,
        message,
        value=value,
        allowed=allowed(info) or info.type,
        did_you_mean=suggestion,
        new=None if parts else suggestion,
        overrides=overrides,
    )


def _nearest_value(info: SettingInfo, value: Any, kind: str) -> str | None:
    """The valid value that was probably meant."""
    word = str(value).lower()
    if info.nullable and word == "none":
        return "null"
    is_switch = info.type == "true or false"
    same_value = other_tools.value_of("switch" if is_switch else info.key, word)
    if same_value != word:
        return same_value
    options = info.allowed
    if info.key == "model.family":
        hub_name = nearest_name_of_hub(str(value))
        hub_name = hub_name or other_tools.repository(str(value), "model")
        if hub_name is not None:
            return hub_name
        word = word.partition("/")[0]  # FAMILY/SIZE
    if is_switch:
        options = ("true", "false")
    if isinstance(options, tuple):
        return nearest_match(word, options)
    if isinstance(value, list):
        return None
    bound = info.bounds.get({"greater_than_equal": "ge", "less_than_equal": "le"}.get(kind, ""))
    return None if bound is None else plain(bound)


def text_of(value: Any) -> str:
    """A value as the text after `--set KEY=`; numbers of numpy and tensors as Python's."""
    if isinstance(value, str | PathLike):
        return str(value)
    return json.dumps(value, default=lambda v: str(v) if isinstance(v, PathLike) else v.tolist())


def names(kind: str | None, key: str | None = None) -> list[str]:
    """All names of a kind of values, see Values; without a kind, what the setting `key` may be."""
    infos: dict[str, SettingInfo] = {}
    models: list[str] = [*FAMILIES]
    stages = []
    for family in FAMILIES:
        infos = {**setting_infos(family), **infos}
        models += [f"{family}:{size}" for size in config_of(family).SIZES]
        stages += [stage.name for stage in stages_of(family)]
    kinds: dict[str, Iterable[str]] = {
        "models": models,
        "stages": dict.fromkeys(stages),
        "keys": sorted(infos),
        "modes": presets.modes(),
        "engines": (*ENGINES, AUTO),
        "trackers": TRACKERS,
        "parts": get_args(ResetPart),
    }
    if kind is not None:
        return [*kinds.get(kind, ())]
    options = infos[key].allowed if key in infos else None
    return list(options) if isinstance(options, tuple) else []


def unknown_command(
    name: str, words: Sequence[str], commands: Sequence[str], known: Sequence[str]
) -> Diagnostic:
    """The error of a command that does not exist; `known` has other words for `commands`, too."""
    nearest = other_tools.command(name)
    option = _option_for(name)
    if nearest is None and option is not None:
        nearest = shlex.join([option, name])
    nearest = nearest or nearest_match(name, known)
    fix = None
    if nearest is not None:
        first = [] if nearest == DEFAULT else shlex.split(nearest)
        fix = f"{PROGRAM} {shlex.join([*first, *words])}".rstrip()
    return Diagnostic(
        f"unknown command '{name}'",
        value=name,
        where="command line, first argument",
        allowed=f"{', '.join(commands)}; or options of {DEFAULT}",
        did_you_mean=nearest,
        fix=fix,
    )
