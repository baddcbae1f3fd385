"""Errors of what was typed: unknown names, values that the schema rejects, and wrong arguments."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import (
    OFF,
    ON,
    PROGRAM,
    Diagnostic,
    SettingsError,
    fold,
    listed,
    nearest_match,
    plain,
    shown,
)
from launcher.base.disk import SHOWN, problem_of
from launcher.config.errors import about, allowed, display_name
from launcher.config.options import BY_FLAG, EMPTY, HELP, Command, info_of, names
from launcher.config.provenance import BUILT_IN_LAYER, Setting, Values
from launcher.config.schema import FIRST_RUN, SettingInfo, sections, setting_infos
from slurm.sbatch import SWITCHES, option_of

# Settings.


def unknown_key(family: str, layer: Values, key: str) -> Diagnostic:
    """A key of `layer` that does not exist, or a section that is given a value."""
    infos, known, above = setting_infos(family), sections(family), key.rpartition(".")[0]
    message, section, suggestion = f"unknown setting '{key}'", above if above in known else "", None
    if key in known:
        message = f"'{key}' is a section, not a setting: it cannot be {shown(layer[key].value)}"
        section = key
    else:
        is_inside = above in infos and infos[above].type == "mapping"
        suggestion = above if is_inside else nearest_key(key, infos)
    here = [name.rpartition(".")[2] for name in (*infos, *known) if name.rpartition(".")[0] == section]
    return about(layer, key, message, allowed=listed(here, "explain"), did_you_mean=suggestion)


def nearest_key(name: str, keys: Collection[str]) -> str | None:
    """The setting among `keys` that was probably meant: by all of its name, or by the last part.

    A short option may stand for its setting: --set batch_size=4.
    """
    section, _, last = name.rpartition(".")
    here = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == section}
    anywhere = {key.rpartition(".")[2]: key for key in keys}
    anywhere |= {flag[2:]: str(option.key) for flag, option in BY_FLAG.items() if option.key in keys}
    same = {fold(part): key for table in (anywhere, here) for part, key in table.items()}.get(fold(last))
    for table in (here, anywhere):
        if same is None and (part := nearest_match(last, table)):
            return table[part]
    return same or (None if section else nearest_match(name, keys))


def rejected(info: SettingInfo, setting: Setting, failure: Mapping[str, Any], below: Setting) -> Diagnostic:
    """The error of a value, or of a part of it, from loc, type and ctx of pydantic's `failure`.

    `below` is the value that it overrides.
    """
    kind, message, path, key = failure["type"], failure["msg"], info.key, info.key
    parts = list(failure["loc"][key.count(".") + 1 :]) if "mapping" in info.type else []
    name = parts.pop() if parts and (parts[-1] == "[key]" or kind in ("extra_forbidden", "missing")) else None
    if any(isinstance(part, int) for part in parts):  # an item of a list
        path += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    value, more = failure.get("input") if parts else setting.value, dict[str, Any]()
    if kind == "missing":
        message = f"{path} has no {name}"
    elif name is not None:
        name = str(parts[-1] if name == "[key]" else name)
        message = f"unknown name '{name}' in {path}"
        more["did_you_mean"] = nearest_match(name, re.findall(r"\w+", str(info.allowed)))
    elif isinstance(value, str) and isinstance(info.allowed, tuple):
        message = f"unknown {display_name(path)} {shown(value)}"
    else:
        reason = str(failure.get("ctx", {}).get("error") or re.sub("^.*(?=should)", "", message))
        if kind == "string_pattern_mismatch" or (kind == "value_error" and not parts):
            reason = "is not understood"
        message = f"{display_name(path)} {shown(value)} {reason}"
    if not parts and name is None:
        word, options, suggestion = str(value).lower(), info.allowed, None
        bound = info.bounds.get({"greater_than_equal": "ge", "less_than_equal": "le"}.get(kind, ""))
        if info.type == "true or false":
            options = ("true", "false")
        if info.nullable and word == "none":
            suggestion = "null"
        elif isinstance(options, tuple):
            switched = ("true", "on") if word in ON else ("false", "off") if word in OFF else ()
            suggestion = next((option for option in switched if option in options), None)
            suggestion = suggestion or nearest_match(word, options)
        elif bound is not None and not isinstance(value, list):
            suggestion = plain(bound)
        more["did_you_mean"] = more["new"] = suggestion
        if below.origin.layer != BUILT_IN_LAYER:
            more["overrides"] = (below.value, below.origin.where)
    return about({path: setting}, path, message, value=value, allowed=allowed(info), **more)


# The command line.

_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    return Diagnostic(message, **{"where": f"command line: {where}", "order": (_ORDER, 0), **parts})


def of_arguments(
    command: Command,
    arguments: Sequence[str],
    wrong: Sequence[tuple[int, Sequence[str]]],
    positionals: Sequence[str],
    modes: Mapping[str, str],
) -> Iterator[Diagnostic]:
    """The errors of a command line: of its `wrong` options, by position, and positional arguments.

    `modes`: the mode by each option that selects one.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if EMPTY.fullmatch(argument):  # most likely a variable of the shell that is not set
            flag, where = argument or before, argument or f'{before} ""'.strip()
            yield _error(f"an empty value after '{flag}'", where, value="")
    by_flag = {option.flag: option for option in (*command.options, HELP)}
    for position, words in wrong:
        if (option := by_flag.get(words[0].partition("=")[0])) is None:
            yield _unknown_option(command, words, position, arguments)
        else:
            message = f"option '{option.flag}' {'needs a' if option.metavar else 'takes no'} value"
            yield _error(message, option.flag, allowed=option.form)
    if len({*modes.values()}) > 1:
        first, second = dict.fromkeys(modes.values())
        where = ", and ".join(f"--mode {mode}" if flag == "--mode" else flag for flag, mode in modes.items())
        message = f"mode is set twice, to {first} and to {second}"
        yield _error(message, where, key="mode", value=second, fix="remove one of them")
    for argument in positionals[command.most(positionals) :]:
        allowed = f"options; see  {command.call} --help"
        fix = f"--set {shlex.quote(argument)}" if argument.partition("=")[0] in names("keys") else None
        fix = f"--resume {shlex.quote(argument)}" if _is_run(argument) else fix
        yield _error(f"unexpected argument '{argument}'", argument, value=argument, allowed=allowed, fix=fix)
    argument, choices, call = "".join(positionals[:1]), ", ".join(command.choices), command.name
    if argument and command.choices and argument not in command.choices:
        parts = {"allowed": choices, "did_you_mean": nearest_match(argument, command.choices)}
        yield _error(
            f"unknown {command.argument} {argument!r}", f"{call} {argument}", value=argument, **parts
        )
    elif command.argument and command.requires_argument and not positionals:
        allowed = choices or command.allowed or f"{PROGRAM} {call} {command.argument}"
        yield _error(f"{call} requires {command.argument}", call, allowed=allowed)
    elif command.requires_operand(argument) and not positionals[1:]:
        call, form = f"{call} {argument or command.choices[0]}", command.operand
        yield _error(f"{call} requires {form}", call, allowed=f"{PROGRAM} {call} {form}")


def of_other_form(
    command: Command, arguments: Sequence[str], positionals: Sequence[str]
) -> Diagnostic | None:
    """The error of a command line that is clearly meant for another form. Reads the disk."""
    name, where = command.name, shlex.join([command.name, *arguments])
    if name == "compare" and positionals and all(map(_is_run, positionals)):
        fix = f"{PROGRAM} report {shlex.join(positionals)}"
        return _error("compare measures modes and engines, no runs", where, fix=fix)
    if name == "data" and len(positionals) == 1 and "--data" in arguments[:-1]:
        call, path = f"data {positionals[0]}", arguments[arguments.index("--data") + 1]
        fix = f"{PROGRAM} {call} {shlex.quote(path)}"
        return _error(f"{call} takes its path as an argument", where, fix=fix)
    return None


def _is_run(text: str) -> bool:
    return not problem_of(text) and (Path(text).expanduser() / "settings.yaml").is_file()


def _unknown_option(command: Command, words: Sequence[str], position: int, argv: Sequence[str]) -> Diagnostic:
    """The error of an unknown option; the second of its `words` is most likely its value.

    One of the program that the command passes options to belongs after `--`; a setting is its own
    option, or --set.
    """
    argument, (flag, is_joined, text) = words[0], words[0].partition("=")
    text, name, line = text if is_joined else "".join(words[1:]), flag, None
    options = {option.flag: option for option in (*command.options, HELP)}
    parts = {"order": (_ORDER, position), "allowed": f"{len(options)} options; see  {command.call} --help"}
    theirs = option_of(argument) if command.passthrough is not None else None
    if theirs is not None:  # sbatch's letter may be that of one of our options: `-o here`, `-ohere`
        name = "--gpus-per-node" if theirs == "gpus" else f"--{theirs}"  # theirs counts those of all nodes
        is_short = len(argument) > 2 and not argument.startswith("--")
        text = argument[2:] if is_short else text
        if name not in options:
            moved = words[:1] if is_joined or is_short or theirs in SWITCHES else words
            ours = [*argv[: position - 1], *argv[position - 1 + len(moved) :]]
            fix = f"{command.call} {shlex.join([*ours, '--', *moved])}"
            message = f"option '{flag}' belongs to {command.passthrough}, not to {command.name}"
            return _error(message, argument, **parts, value=argument, fix=fix)
    # A dotted key, or the last part of a single one.
    last = {
        key for key in names("keys") if fold(name.lstrip("-")) in map(fold, (key, key.rpartition(".")[2]))
    }
    near, key = nearest_match(name, options), last.pop() if len(last) == 1 and "--set" in options else None
    quoted = shlex.quote(text) if text else ""
    if near is not None and (fold(near) == fold(name) or key is None):
        line = f"{near} {quoted if options[near].metavar else ''}".rstrip()
    elif key is not None:
        info = info_of(key)
        is_switch = info is not None and info.type == "true or false"
        line = f"--set {key}={quoted or ('true' if is_switch else 'VALUE')}"
    meant = line and re.split(r" (?=--)|=", line)[0]  # without the value
    return _error(f"unknown option '{flag}'", argument, **parts, value=flag, did_you_mean=meant, fix=line)


# Calls of Python.

KINDS: dict[str, tuple[type, ...]] = {
    **{"model": (str, type), "mode": (str,), "engine": (str,), "nproc": (int,)},
    **{"config": (str, PathLike, Sequence), "out": (str, PathLike), "settings": (Mapping,)},
    **{"console": (bool,), "resume": (str, int, PathLike), "reset": (str, Sequence)},
}
"""The arguments of `train`, and their types."""
_OF_KEYS = {"model.family": "model", "model.size": "model", "mode": "mode", "engine.name": "engine"}
_OF_KEYS |= {"engine.nproc": "nproc", "--input": "inputs"}
"""The arguments that have another name than the setting or the option."""
EVALUATE = "Run.evaluate"
"""The call with an argument for the data."""


def as_arguments(diagnostics: Iterable[Diagnostic], call: str) -> list[Diagnostic]:
    """The diagnostics of a Python call, such as `train`: what was typed is one of its arguments."""
    names, typed = _OF_KEYS | ({"data.path": "data"} if call == EVALUATE else {}), []
    for one in diagnostics:
        if (one.where or "").startswith(("--", "command line", "the command line")):
            key = one.key or ""
            option = key[2:].replace("-", "_") if key.startswith("--") else None
            name, value = names.get(key, option) or "settings", one.value
            given = repr({key: value} if name == "settings" else value)
            one = replace(one, where=f"{call}({name}={given})" if key else f"{call}()")
        typed.append(one)
    return typed


def text_of(key: str, value: Any, call: str) -> str:
    """A value as the text after `--set KEY=`. Raises SettingsError for what is no setting."""
    if isinstance(value, str | PathLike):
        return str(value)

    def plain(value: Any) -> Any:
        """A path as text; a number of numpy or a tensor, or several, as those of Python."""
        return str(value) if isinstance(value, PathLike) else value.tolist()

    try:
        return json.dumps(value, default=plain)
    except (TypeError, AttributeError):  # no number
        raise SettingsError.of(
            f"{key} is of type {type(value).__name__}",
            key=key,
            where=f"{call}(settings={{{key!r}: {value!r}}})",
            allowed="text, numbers, true or false, None, and lists of them",
        ) from None


def check_types(given: Mapping[str, tuple[Any, tuple[type, ...]]], call: str, none: bool = True) -> None:
    """Raise SettingsError for arguments of another type than these, and impossible paths.

    `none`: or None.
    """
    wrong = []
    for name, (value, kind) in given.items():
        problem = None
        is_other = isinstance(value, bool) and bool not in kind
        if (value is not None or not none) and (is_other or not isinstance(value, kind)):
            problem = f"is of type {type(value).__name__}, not {' or '.join(t.__name__ for t in kind)}"
        elif name in ("config", "out", "resume", "folder"):
            several: Any = [value] if isinstance(value, str | PathLike | int) else value or ()
            problem = next(filter(None, (problem_of(str(path)) for path in several)), None)
        if problem:
            message = f"{name} {repr(value)[:SHOWN]} {problem}"
            wrong.append(Diagnostic(message, value=value, where=f"{call}({name}={value!r})"))
    if wrong:
        raise SettingsError(wrong)


def no_argument(name: str, value: object) -> Diagnostic:
    """The error of an argument that `train` lacks: most likely a setting."""
    argument, key = nearest_match(name, KINDS), nearest_key(name, setting_infos(FIRST_RUN[0]))
    fix = f"{argument}={value!r}" if argument else key and f"settings={{{key!r}: {value!r}}}"
    return Diagnostic(
        f"train has no argument {name!r}",
        value=value,
        where=f"train({name}={value!r})",
        allowed=", ".join(KINDS),
        did_you_mean=argument or key,
        fix=fix,
    )
