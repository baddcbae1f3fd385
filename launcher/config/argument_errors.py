"""Errors of arguments, and the option that was probably meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, fold, nearest_match
from launcher.base.disk import problem_of
from launcher.config.options import EMPTY, HELP, Command, info_of, is_readable, names, split_options
from launcher.config.schema import PRETRAINED
from models.common.hub import HUB
from slurm.sbatch import SWITCHES, option_of

_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    return Diagnostic(message, **{"where": f"command line: {where}", "order": (_ORDER, 0), **parts})


def find(
    command: Command,
    arguments: Sequence[str],
    positionals: Sequence[str],
    most: int,
    modes: Mapping[str, str],
) -> Iterator[Diagnostic]:
    """The errors of a command line, with its positional arguments, of which the command takes `most`.

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
    for argument in positionals[most:]:
        line = model_line(argument)
        if "=" in argument and argument.partition("=")[0] in names("keys"):
            line = f"--set {shlex.quote(argument)}"
        line = line if line and line.split()[0] in by_flag else None
        parts: dict[str, Any] = {
            "allowed": f"options; see  {command.call} --help",
            "did_you_mean": line and meant(line),
        }
        yield _error(f"unexpected argument '{argument}'", argument, value=argument, fix=line, **parts)
    argument, choices, call = "".join(positionals[:1]), ", ".join(command.choices), command.name
    if not argument and command.argument and command.requires_argument:
        if not positionals:  # an empty one is an error of its own
            allowed = choices or command.allowed or f"{PROGRAM} {call} {command.argument}"
            yield _error(f"{call} requires {command.argument}", call, allowed=allowed)
    elif argument and command.choices and argument not in command.choices:
        parts = {"value": argument, "allowed": choices}
        parts["did_you_mean"] = nearest_match(argument, command.choices)
        yield _error(f"unknown {command.argument} {argument!r}", f"{call} {argument}", **parts)
    elif command.requires_operand(argument) and not positionals[1:]:
        call = f"{call} {argument or command.choices[0]}"
        allowed = f"{PROGRAM} {call} {command.operand}"
        yield _error(f"{call} requires {command.operand}", call, allowed=allowed)


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
    argument, following = words[0], words[1] if words[1:] else None
    flag, is_joined, value = argument.partition("=")
    parts: dict[str, Any] = {"value": argument, "order": (_ORDER, position)}
    options = {option.flag: option for option in (*command.options, HELP)}
    theirs = option_of(argument) if command.passthrough is not None else None
    theirs = "gpus-per-node" if theirs == "gpus" else theirs  # theirs counts those of all nodes
    if theirs is not None and f"--{theirs}" not in options:
        is_short = len(argument) > 2 and not argument.startswith("--")
        moved = words[:1] if is_joined or is_short or theirs in SWITCHES else words
        ours = [*argv[: position - 1], *argv[position - 1 + len(moved) :]]
        parts["allowed"] = f"options of {command.passthrough} at the end, after  -- "
        parts["fix"] = f"{command.call} {shlex.join([*ours, '--', *moved])}"
        message = f"option '{flag}' belongs to {command.passthrough}, not to {command.name}"
        return _error(message, argument, **parts)
    text, name = value if is_joined else following, flag
    if theirs is not None:  # sbatch's letter for one of our options: `-o here`, `-ohere`
        name, text = f"--{theirs}", text if argument.startswith("--") else argument[2:] or following
    quoted = "" if text is None else shlex.quote(text)
    near, key, line = nearest_match(name, options), _key_of(name.lstrip("-")), None
    if near is not None and (fold(near) == fold(name) or key is None or "--set" not in options):
        line = f"{near} {quoted if options[near].metavar else ''}".rstrip()
    elif key is not None and "--set" in options:
        info = info_of(key)
        is_switch = info is not None and info.type == "true or false"
        line = f"--set {key}={quoted or ('true' if is_switch else 'VALUE')}"
    parts |= {"value": flag, "did_you_mean": line and meant(line), "fix": line}
    parts["allowed"] = f"{len(options)} options; see  {command.call} --help"
    return _error(f"unknown option '{flag}'", argument, **parts)


def _key_of(name: str) -> str | None:
    """The setting for a dotted key, or for the last part of a single one."""
    keys = names("keys")
    for part in (lambda key: key, lambda key: key.rpartition(".")[2]):
        same = [key for key in keys if fold(part(key)) == fold(name)]
        if len(same) == 1:
            return same[0]
    return None


def meant(line: str) -> str:
    """The options of a line to type, without the value of a setting: `--set optim.lr`."""
    return re.split(r" (?=--)|=", line)[0]


def model_line(name: str) -> str | None:
    """The option that takes `name`, which is no model here: of the hub, or a folder. Reads the disk."""
    path, quoted = Path(name).expanduser(), shlex.quote(name)
    if problem_of(name):
        return None
    if _is_run(name):
        return f"--resume {quoted}"
    is_model = name.startswith(HUB) or (path / "config.json").is_file()
    return f"--set {PRETRAINED}={quoted}" if is_model else f"--data {quoted}" if path.is_dir() else None
