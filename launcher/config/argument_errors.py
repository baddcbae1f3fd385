"""Errors of arguments, and the option that was probably meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, fold, nearest_match
from launcher.base.disk import problem_of
from launcher.config.options import EMPTY, HELP, Command, Option, is_switch, names
from launcher.config.schema import PRETRAINED
from models.common.hub import HUB
from slurm.sbatch import SWITCHES, option_of

_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    return Diagnostic(message, **{"where": f"command line: {where}", "order": (_ORDER, 0), **parts})


def unknown_option(command: Command, words: Sequence[str], position: int, argv: Sequence[str]) -> Diagnostic:
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
        line = f"--set {key}={quoted or ('true' if is_switch(key) else 'VALUE')}"
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


def unreadable(option: Option) -> Diagnostic:
    """The error of an option without its value, or with a value that it does not take."""
    message = f"option '{option.flag}' {'needs a' if option.metavar else 'takes no'} value"
    return _error(message, option.flag, allowed=f"{option.flag} {option.metavar or ''}".strip())


def unexpected(command: Command, argument: str) -> Diagnostic:
    """The error of an argument that the command does not take."""
    line = model_line(argument)
    if "=" in argument and argument.partition("=")[0] in names("keys"):
        line = f"--set {shlex.quote(argument)}"
    if line and line.split()[0] not in [option.flag for option in command.options]:
        line = None
    parts = {"allowed": f"options; see  {command.call} --help", "did_you_mean": line and meant(line)}
    return _error(f"unexpected argument '{argument}'", argument, value=argument, fix=line, **parts)


def empty_values(argv: Sequence[str]) -> Iterator[Diagnostic]:
    """The errors of empty values: most likely a variable of the shell that is not set."""
    for before, argument in zip(["", *argv], argv, strict=False):
        if EMPTY.fullmatch(argument):
            flag = argument or before
            where = argument or f'{before} ""'.strip()
            yield _error(f"an empty value after '{flag}'" if flag else "an empty value", where, value="")


def second_mode(modes: Mapping[str, str]) -> Diagnostic:
    """The error of options that select different modes."""
    first, second = dict.fromkeys(modes.values())
    where = ", and ".join(f"--mode {m}" if o == "--mode" else o for o, m in modes.items())
    message = f"mode is set twice, to {first} and to {second}"
    return _error(message, where, key="mode", value=second, fix="remove one of them")


def missing_argument(command: Command, name: str | None, call: str) -> Diagnostic:
    """The error of a `call` of a command without its argument, or its second one, of this name."""
    allowed = ", ".join(command.choices) if name == command.argument else None
    allowed = allowed or (name == command.argument and command.allowed) or f"{PROGRAM} {call} {name}"
    return _error(f"{call} requires {name}", call, allowed=allowed)


def wrong_argument(command: Command, argument: str) -> Diagnostic:
    """The error of an argument that is none of the command's choices."""
    suggestion, allowed = nearest_match(argument, command.choices), ", ".join(command.choices)
    parts = {"value": argument, "allowed": allowed, "did_you_mean": suggestion}
    return _error(f"unknown {command.argument} {argument!r}", f"{command.name} {argument}", **parts)


def model_line(name: str) -> str | None:
    """The option that takes `name`, which is no model here: of the hub, or a folder. Reads the disk."""
    path, quoted = Path(name).expanduser(), shlex.quote(name)
    if problem_of(name):
        return None
    if (path / "settings.yaml").is_file():
        return f"--resume {quoted}"
    is_model = name.startswith(HUB) or (path / "config.json").is_file()
    return f"--set {PRETRAINED}={quoted}" if is_model else f"--data {quoted}" if path.is_dir() else None
