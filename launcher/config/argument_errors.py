"""Errors of arguments, and the option that was probably meant by an unknown one."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, fold, nearest_match
from launcher.config.model_lines import is_run, model_line, named_option
from launcher.config.options import BY_FLAG, EMPTY, HELP, Command, Option, is_switch, names
from slurm.sbatch import SWITCHES, option_of

_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


def unknown_option(command: Command, words: Sequence[str], position: int, argv: Sequence[str]) -> Diagnostic:
    """The error of an unknown option; the second of its `words` is most likely its value."""
    argument, following = words[0], words[1] if len(words) > 1 else None
    flag, is_joined, value = argument.partition("=")
    flags = [option.flag for option in command.options] + [HELP.flag]
    theirs = option_of(argument) if command.passthrough is not None else None
    if argument == "--data" and command.name == "data":
        message = f"data {command.choices[0]} takes the path without an option"
        where = f"{argument} {following or ''}".strip()
        path_fix = f"{command.call} check {shlex.quote(following or 'PATH')}"
        return _error(message, where, value=argument, fix=path_fix, order=(_ORDER, position))
    theirs = "gpus-per-node" if theirs == "gpus" else theirs  # theirs counts those of all nodes
    if theirs is not None and f"--{theirs}" not in flags:
        is_short = len(argument) > 2 and not argument.startswith("--")
        moved = words[:1] if is_joined or is_short or theirs in SWITCHES else words
        ours = [*argv[: position - 1], *argv[position - 1 + len(moved) :]]
        return _error(
            f"option '{flag}' belongs to {command.passthrough}, not to {command.name}",
            argument,
            value=argument,
            allowed=f"options of {command.passthrough} at the end, after  -- ",
            fix=f"{command.call} {shlex.join([*ours, '--', *moved])}",
            order=(_ORDER, position),
        )
    value_text = value if is_joined else following
    word = flag
    if theirs is not None:
        # sbatch's word for one of our options: `--gpus 4`; its letter: `-o here`, `-ohere`
        word = f"--{theirs}"
        value_text = value_text if argument.startswith("--") else argument[2:] or following
    suggestion, fix = nearest_option(command.options, word, value_text)
    return _error(
        f"unknown option '{flag}'",
        argument,
        value=flag,
        allowed=f"{len(flags)} options; see  {command.call} --help",
        did_you_mean=suggestion,
        fix=fix,
        order=(_ORDER, position),
    )


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    known = {"where": f"command line: {where}", "order": (_ORDER, 0)}
    return Diagnostic(message, **(known | parts))


def unreadable(command: Command, error: argparse.ArgumentError) -> Diagnostic:
    """The error of an option without its value, or with a value that it does not take."""
    flag = error.argument_name or ""
    option = next((option for option in command.options if option.flag == flag), None)
    takes_value = option is not None and option.metavar is not None
    message = f"option '{flag}' needs a value" if takes_value else f"option '{flag}' takes no value"
    form = f"{flag} {option.metavar}" if option and takes_value else flag
    return _error(message, flag, allowed=form)


def unexpected(command: Command, argument: str) -> Diagnostic:
    if command.name == "compare" and is_run(Path(argument)):
        fix = f"{PROGRAM} report {shlex.quote(argument)}  compares it with other runs"
        return _error(f"unexpected argument '{argument}'", argument, value=argument, fix=fix)
    kinds = [o for o in command.options if o.values in ("models", "modes", "engines")]
    named = [option for option in kinds if argument in names(str(option.values))]
    flags = [option.flag for option in command.options]
    line = f"{named[0].flag} {argument}" if named else model_line(argument)
    if "=" in argument and argument.partition("=")[0] in names("keys"):
        line = f"--set {shlex.quote(argument)}"
    line = line if line is not None and fits(line, flags) else None
    return _error(
        f"unexpected argument '{argument}'",
        argument,
        value=argument,
        allowed=f"options; see  {command.call} --help",
        did_you_mean=line and meant(line),
        fix=line,
    )


def empty_values(argv: Sequence[str]) -> Iterator[Diagnostic]:
    """The errors of empty values: most likely a variable of the shell that is not set."""
    for before, argument in zip(["", *argv], argv, strict=False):
        if argument == "":
            after = f" after '{before}'" if before else ""
            yield _error(f"an empty value{after}", f'{before} ""'.strip(), value="")
        elif EMPTY.fullmatch(argument):
            yield _error(f"an empty value after '{argument}'", argument, value="")


def second_mode(modes: Mapping[str, str]) -> Diagnostic:
    """The error of options that select different modes."""
    first, second = dict.fromkeys(modes.values())
    message = f"mode is set twice, to {first} and to {second}"
    where = ", and ".join(f"--mode {m}" if o == "--mode" else o for o, m in modes.items())
    return _error(message, where, key="mode", value=second, fix="remove one of them")


def missing_argument(command: Command, example_run: Callable[[], str | None]) -> Diagnostic:
    name = command.argument or ""
    run = example_run() if name == "RUN" else None
    example = next(iter(command.choices), "my_task" if name == "NAME" else name)
    fix = " ".join([command.call, shlex.quote(run) if run else example, *filter(None, [command.operand])])
    if name == "RUN" and run is None:
        fix = f"{PROGRAM}  trains a model; then  {fix}"
    allowed = ", ".join(command.choices) or command.allowed
    return _error(f"{command.name} requires {name}", command.name, allowed=allowed, fix=fix)


def missing_operand(command: Command) -> Diagnostic:
    call = f"{command.name} {command.choices[0]}"
    allowed = f"{PROGRAM} {call} {command.operand}"
    return _error(f"{call} requires {command.operand}", call, allowed=allowed)


def wrong_argument(command: Command, argument: str, operand: str | None) -> Diagnostic:
    suggestion = nearest_match(argument, command.choices)
    meant = suggestion or (command.choices[0] if command.requires_argument else "")
    if command.requires_operand(meant):
        meant += f" {shlex.quote(operand or command.operand or '')}"
    return _error(
        f"unknown {command.argument} {argument!r}",
        f"{command.name} {argument}",
        value=argument,
        allowed=", ".join(command.choices),
        did_you_mean=suggestion,
        fix=f"{command.call} {meant}".rstrip(),
    )


def nearest_option(
    options: Sequence[Option], flag: str, value_text: str | None
) -> tuple[str | None, str | None]:
    """The option that was probably meant by `flag`, and the line to type with its value."""
    flags = [option.flag for option in options] + [HELP.flag]
    ours = BY_FLAG.get(flag)
    if ours is not None and ours.key is not None and flag not in flags and fits("--set", flags):
        return f"--set {ours.key}", f"--set {ours.key}={shlex.quote(value_text or 'true')}"
    suggestion = nearest_match(flag, flags)
    if suggestion is None or fold(suggestion) != fold(flag):
        key = _key_of(flag.lstrip("-"))
        text = "true" if value_text is None and key and is_switch(key) else value_text
        of_key = key and f"--set {key}={'VALUE' if text is None else shlex.quote(text)}"
        for line in filter(None, (named_option(flag.lstrip("-")), of_key)):
            if "--modes" in flags:  # compare takes several
                line = re.sub("^--(mode|engine) ", r"--\1s ", line)
            if fits(line, flags):
                return meant(line), line
    takes_value = any(o.flag == suggestion and o.metavar is not None for o in options)
    value = f" {shlex.quote(value_text)}" if takes_value and value_text is not None else ""
    return suggestion, suggestion and f"{suggestion}{value}"


def meant(line: str) -> str:
    """The option or the command that a line to type is about, without its value."""
    parts = line.split("  ")
    options = next((part for part in parts if part.startswith("--")), parts[0])
    return re.split(r" (?=--)|=", options)[0]


def _key_of(name: str) -> str | None:
    """The setting for a dotted key, or for the last part of a single one.

    Another key of a section stays as it is: the error of the setting has the nearest one.
    """
    keys = names("keys")
    for part in (lambda key: key, lambda key: key.rpartition(".")[2]):
        same = [key for key in keys if fold(part(key)) == fold(name)]
        if len(same) == 1:
            return same[0]
    section, dot, _ = name.partition(".")
    return name if dot and any(key.startswith(f"{section}.") for key in keys) else None


def fits(line: str, flags: Sequence[str]) -> bool:
    """Whether the options of `line` are among `flags`; other lines are for those of a run."""
    if not line.startswith("--"):
        return "--epochs" in flags
    options = [word for word in line.partition("  ")[0].split() if word.startswith("--")]
    return set(options) <= {*flags}
