"""Errors of what was typed: unknown names, values that the schema rejects, and wrong arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import OFF, ON, PROGRAM, Diagnostic, fold, listed, nearest_match, plain, shown
from launcher.base.disk import problem_of
from launcher.config.errors import about_entry, allowed, display_name, fix_line
from launcher.config.options import BY_FLAG, EMPTY, HELP, Command, info_of, is_readable, names, split_options
from launcher.config.provenance import BUILT_IN_LAYER, Setting, TypedEntry
from launcher.config.schema import PRETRAINED, SettingInfo, sections, setting_infos
from models.common.hub import HUB
from slurm.sbatch import SWITCHES, option_of

# Settings.


def unknown_key(family: str, entry: TypedEntry) -> Diagnostic:
    """A key that does not exist, or a section that is given a value."""
    infos, known = setting_infos(family), sections(family)
    above = entry.key.rpartition(".")[0]
    message, section, suggestion = f"unknown setting '{entry.key}'", above if above in known else "", None
    if entry.key in known:
        message = f"'{entry.key}' is a section, not a setting: it cannot be {shown(entry.value)}"
        section = entry.key
    elif above in infos and infos[above].type == "mapping":
        suggestion = above
    else:
        suggestion = nearest_key(entry.key, infos)
    here = [key.rpartition(".")[2] for key in (*infos, *known) if key.rpartition(".")[0] == section]
    return about_entry(entry, message, allowed=listed(here, "explain"), did_you_mean=suggestion)


def nearest_key(name: str, keys: Collection[str]) -> str | None:
    """The setting among `keys` that was probably meant: by all of its name, or by the last part.

    A short option may stand for its setting: --set batch_size=4.
    """
    section, _, last = name.rpartition(".")
    here = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == section}
    anywhere = {key.rpartition(".")[2]: key for key in keys}
    anywhere |= {flag[2:]: option.key for flag, option in BY_FLAG.items() if option.key in keys}
    for table in (here, anywhere):
        if same := [key for part, key in table.items() if fold(part) == fold(last)]:
            return same[0]
    part = nearest_match(last, here) or nearest_match(last, anywhere)
    if part is not None:
        return here.get(part) or anywhere[part]
    return None if section else nearest_match(name, keys)


def rejected(info: SettingInfo, entry: TypedEntry, failure: Mapping[str, Any], below: Setting) -> Diagnostic:
    """The error of a value, or of a part of it, from loc, type and ctx of pydantic's `failure`.

    `below` is the value that it overrides.
    """
    kind, message, path, key = failure["type"], failure["msg"], entry.key, entry.key
    parts = list(failure["loc"][key.count(".") + 1 :]) if "mapping" in info.type else []
    name = parts.pop() if parts and (parts[-1] == "[key]" or kind in ("extra_forbidden", "missing")) else None
    if any(isinstance(part, int) for part in parts):  # an item of a list
        path += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    value, suggestion, fix = failure.get("input") if parts else entry.value, None, None
    if kind == "missing":
        message = f"{path} has no {name}"
    elif name is not None:
        name = parts[-1] if name == "[key]" else name
        message = f"unknown name '{name}' in {path}"
        suggestion = nearest_match(str(name), re.findall(r"\w+", str(info.allowed)))
    elif isinstance(value, str) and isinstance(info.allowed, tuple):
        message = f"unknown {display_name(path)} {shown(value)}"
    else:
        reason = str(failure.get("ctx", {}).get("error") or re.sub("^.*(?=should)", "", message))
        if kind == "string_pattern_mismatch" or (kind == "value_error" and not parts):
            reason = "is not understood"
        message = f"{display_name(path)} {shown(value)} {reason}"
    if not parts and name is None:
        suggestion = _nearest(info, value, kind)
        fix = suggestion and fix_line(key, entry.origin, suggestion)
        if key == "model.family" and suggestion is None and isinstance(value, str):
            fix = _model_line(value)
            suggestion = fix and _meant(fix)
    is_shown = not parts and name is None and below.origin.layer != BUILT_IN_LAYER
    return about_entry(
        replace(entry, key=path),
        message,
        value=value,
        overrides=(below.value, below.origin.where) if is_shown else None,
        allowed=allowed(info),
        did_you_mean=suggestion,
        fix=fix,
    )


def _nearest(info: SettingInfo, value: Any, kind: str) -> str | None:
    """The text that was probably meant; None: it is not known."""
    word, names = str(value).lower(), info.allowed
    if info.nullable and word == "none":
        return "null"
    if info.type == "true or false":
        names = ("true", "false")
    if isinstance(names, tuple):
        switched = ("true", "on") if word in ON else ("false", "off") if word in OFF else ()
        option = next((option for option in switched if option in names), None)
        return option or (nearest_match(value, names) if isinstance(value, str) else None)
    bound = {"greater_than_equal": "ge", "less_than_equal": "le"}.get(kind, "")
    return plain(info.bounds[bound]) if bound in info.bounds and not isinstance(value, list) else None


# The command line.

_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    return Diagnostic(message, **{"where": f"command line: {where}", "order": (_ORDER, 0), **parts})


def of_arguments(
    command: Command, arguments: Sequence[str], positionals: Sequence[str], modes: Mapping[str, str]
) -> Iterator[Diagnostic]:
    """The errors of a command line with its positional arguments.

    `modes`: the mode by each option that selects one.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if EMPTY.fullmatch(argument):  # most likely a variable of the shell that is not set
            flag = argument or before
            where = argument or f'{before} ""'.strip()
            yield _error(f"an empty value after '{flag}'" if flag else "an empty value", where, value="")
    by_flag = {option.flag: option for option in command.options}
    for position, words, is_known in split_options(command, arguments):
        option = by_flag.get(words[0].partition("=")[0])
        if not is_known:
            yield _unknown_option(command, words, position, arguments)
        elif option is not None and not is_readable(option, words):
            message = f"option '{option.flag}' {'needs a' if option.metavar else 'takes no'} value"
            yield _error(message, option.flag, allowed=option.form)
    if len({*modes.values()}) > 1:
        first, second = dict.fromkeys(modes.values())
        where = ", and ".join(f"--mode {mode}" if flag == "--mode" else flag for flag, mode in modes.items())
        message = f"mode is set twice, to {first} and to {second}"
        yield _error(message, where, key="mode", value=second, fix="remove one of them")
    for argument in positionals[command.most(positionals) :]:
        line = _model_line(argument)
        if "=" in argument and argument.partition("=")[0] in names("keys"):
            line = f"--set {shlex.quote(argument)}"
        line = line if line and line.split()[0] in by_flag else None
        parts = {"allowed": f"options; see  {command.call} --help", "did_you_mean": line and _meant(line)}
        yield _error(f"unexpected argument '{argument}'", argument, value=argument, fix=line, **parts)
    argument, choices, call = "".join(positionals[:1]), ", ".join(command.choices), command.name
    if not argument and command.argument and command.requires_argument:
        if not positionals:  # an empty one is an error of its own
            form = choices or command.allowed or f"{PROGRAM} {call} {command.argument}"
            yield _error(f"{call} requires {command.argument}", call, allowed=form)
    elif argument and command.choices and argument not in command.choices:
        parts = {"value": argument, "allowed": choices}
        parts["did_you_mean"] = nearest_match(argument, command.choices)
        yield _error(f"unknown {command.argument} {argument!r}", f"{call} {argument}", **parts)
    elif command.requires_operand(argument) and not positionals[1:]:
        call, form = f"{call} {argument or command.choices[0]}", command.operand
        yield _error(f"{call} requires {form}", call, allowed=f"{PROGRAM} {call} {form}")


def of_other_form(
    command: Command, arguments: Sequence[str], positionals: Sequence[str]
) -> Iterator[Diagnostic]:
    """The error of a command line that is clearly meant for another form. Reads the disk."""
    message = line = ""
    if command.name == "compare" and positionals and all(map(_is_run, positionals)):
        message, line = "compare measures modes and engines, no runs", f"report {shlex.join(positionals)}"
    elif command.name == "data" and len(positionals) == 1 and "--data" in arguments[:-1]:
        path = arguments[arguments.index("--data") + 1]
        line = shlex.join([command.name, *positionals, path])
        message = f"{command.name} {positionals[0]} takes its path as an argument"
    if line:
        yield _error(message, shlex.join([command.name, *arguments]), fix=f"{PROGRAM} {line}")


def _is_run(text: str) -> bool:
    return not problem_of(text) and (Path(text).expanduser() / "settings.yaml").is_file()


def _unknown_option(command: Command, words: Sequence[str], position: int, argv: Sequence[str]) -> Diagnostic:
    """The error of an unknown option; the second of its `words` is most likely its value.

    One of the program that the command passes options to belongs after `--`; a setting is its own
    option, or --set.
    """
    argument, (flag, is_joined, text) = words[0], words[0].partition("=")
    options = {option.flag: option for option in (*command.options, HELP)}
    order, name = (_ORDER, position), flag
    theirs = option_of(argument) if command.passthrough is not None else None
    theirs = "gpus-per-node" if theirs == "gpus" else theirs  # theirs counts those of all nodes
    text = text if is_joined else "".join(words[1:])
    is_short = len(argument) > 2 and not argument.startswith("--")
    if theirs is not None and f"--{theirs}" not in options:
        moved = words[:1] if is_joined or is_short or theirs in SWITCHES else words
        ours = [*argv[: position - 1], *argv[position - 1 + len(moved) :]]
        return _error(
            f"option '{flag}' belongs to {command.passthrough}, not to {command.name}",
            argument,
            value=argument,
            order=order,
            allowed=f"options of {command.passthrough} at the end, after  -- ",
            fix=f"{command.call} {shlex.join([*ours, '--', *moved])}",
        )
    if theirs is not None:  # sbatch's letter for one of our options: `-o here`, `-ohere`
        name, text = f"--{theirs}", argument[2:] if is_short else text
    near, key, line = nearest_match(name, options), _key_of(name.lstrip("-")), None
    quoted = shlex.quote(text) if text else ""
    if near is not None and (fold(near) == fold(name) or key is None or "--set" not in options):
        line = f"{near} {quoted if options[near].metavar else ''}".rstrip()
    elif key is not None and "--set" in options:
        info = info_of(key)
        is_switch = info is not None and info.type == "true or false"
        line = f"--set {key}={quoted or ('true' if is_switch else 'VALUE')}"
    parts = {"allowed": f"{len(options)} options; see  {command.call} --help", "fix": line}
    parts["did_you_mean"] = line and _meant(line)
    return _error(f"unknown option '{flag}'", argument, value=flag, order=order, **parts)


def _key_of(name: str) -> str | None:
    """The setting for a dotted key, or for the last part of a single one."""
    keys = names("keys")
    for part in (lambda key: key, lambda key: key.rpartition(".")[2]):
        same = [key for key in keys if fold(part(key)) == fold(name)]
        if len(same) == 1:
            return same[0]
    return None


def _meant(line: str) -> str:
    """The options of a line to type, without the value of a setting: `--set optim.lr`."""
    return re.split(r" (?=--)|=", line)[0]


def _model_line(name: str) -> str | None:
    """The option that takes `name`, which is no model here: of the hub, or a folder. Reads the disk."""
    path, quoted = Path(name).expanduser(), shlex.quote(name)
    if problem_of(name):
        return None
    if _is_run(name):
        return f"--resume {quoted}"
    is_model = name.startswith(HUB) or (path / "config.json").is_file()
    return f"--set {PRETRAINED}={quoted}" if is_model else f"--data {quoted}" if path.is_dir() else None
