"""Errors of arguments, and the option that was probably meant by an unknown one."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, fold, nearest_match
from launcher.config.command import DEFAULT, EMPTY, Command, split_options
from launcher.config.foreign_words import REMOVE, all_words_for, similar, words_for
from launcher.config.model_lines import model_line, named_option, typed_model
from launcher.config.options import BY_FLAG, HELP, Option, is_switch, names
from models.catalog import split_model_name
from slurm.sbatch import option_of

_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""
_ASSIGNMENT = re.compile(r"\+{0,2}(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)")
"""A bare KEY=VALUE, as a shell takes variables or another tool its settings."""


def unknown_option(
    command: Command, words: Sequence[str], position: int, argv: Sequence[str]
) -> Diagnostic:
    """The error of an unknown option; the second of its `words` is most likely its value."""
    argument, following = words[0], words[1] if len(words) > 1 else None
    flag, is_joined, value = argument.partition("=")
    flags = [option.flag for option in command.options] + [HELP.flag]
    theirs = option_of(argument) if command.passthrough is not None else None
    if theirs is not None and f"--{theirs}" not in flags:
        ours = [word for word in argv if word not in (argument, "--")]
        return _error(
            f"option '{flag}' belongs to {command.passthrough}, not to {command.name}",
            argument,
            value=argument,
            allowed=f"options of {command.passthrough} at the end, after  -- ",
            fix=f"{command.call} {shlex.join([*ours, '--', argument])}",
            order=(_ORDER, position),
        )
    value_text = value if is_joined else following
    word = flag
    if theirs is not None and not argument.startswith("--"):
        # sbatch's letter for one of our options: `-o here`, `-ohere`
        word, value_text = f"--{theirs}", argument[2:] or following
    suggestion, fix = nearest_option(command.options, word, value_text, argv)
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
    kinds = [o for o in command.options if o.values in ("models", "modes", "engines")]
    named = [option for option in kinds if argument in names(str(option.values))]
    flags = [option.flag for option in command.options]
    line = f"{named[0].flag} {argument}" if named else model_line(argument)
    line = line or assignment_line(command.options, argument, [])
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
    fix = " ".join(
        [command.call, shlex.quote(run) if run else example, *filter(None, [command.operand])]
    )
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


def corrected(command: Command, argv: Sequence[str]) -> list[str]:
    """`argv` with the options of this program instead of those of another tool."""
    line: str | None
    words: list[str] = []
    for position, option_words, is_known in split_options(command, argv):
        if not is_known:
            line = unknown_option(command, option_words, position, argv).fix
            line = line and line.partition("  ")[0]
        else:
            is_run = command.name == DEFAULT
            line = assignment_line(command.options, option_words[0], argv) if is_run else None
        words += shlex.split(line) if line and line.startswith("--") else option_words
    return words


def nearest_option(
    options: Sequence[Option], flag: str, value_text: str | None, argv: Sequence[str]
) -> tuple[str | None, str | None]:
    """The option that was probably meant by `flag`, and the line to type with its value."""
    flags = [option.flag for option in options] + [HELP.flag]
    ours = BY_FLAG.get(flag)
    if ours is not None and ours.key is not None and flag not in flags and fits("--set", flags):
        return f"--set {ours.key}", f"--set {ours.key}={shlex.quote(value_text or 'true')}"
    suggestion = nearest_match(flag, flags)
    is_ours = suggestion is not None and fold(suggestion) == fold(flag)
    for option, line in _lines(flag.lstrip("-"), value_text, argv, is_ours):
        if "--modes" in flags:  # compare takes several
            line = option = re.sub("^--(mode|engine) ", r"--\1s ", line)
        if fits(line, flags):
            return None if line.startswith(REMOVE) else option, line
    if suggestion is None and (word := similar(flag)) is not None:
        return nearest_option(options, f"--{word}", value_text, argv)
    takes_value = any(o.flag == suggestion and o.metavar is not None for o in options)
    value = f" {shlex.quote(value_text)}" if takes_value and value_text is not None else ""
    return suggestion, suggestion and f"{suggestion}{value}"


def _lines(
    word: str, value_text: str | None, argv: Sequence[str], is_ours: bool
) -> Iterator[tuple[str, str]]:
    """What may be typed instead of an option: without its value, and all of it.

    `is_ours`: but for its spelling it is one of ours; the original of the model may have it, too.
    """
    if not is_ours and (line := named_option(word)) is not None:
        yield line, line
    key, value = _key_of(word), "VALUE" if value_text is None else shlex.quote(value_text)
    value = "true" if key is not None and value_text is None and is_switch(key) else value
    of_key = [] if key is None or is_ours else [(f"--set {key}", f"--set {key}={value}")]
    if "." in word:
        yield from of_key
    model = typed_model(argv)
    family = model and split_model_name(model)[0]
    for entry in (words_for if is_ours else all_words_for)(word, family):
        line = entry.replacement(value_text, family, argv)
        is_other = not line.startswith(entry.option) or entry.here is None
        yield meant(line) if is_other else entry.option, line
    yield from of_key


def meant(line: str) -> str:
    """The option or the command that a line to type is about, without its value."""
    parts = line.split("  ")
    options = next((part for part in parts if part.startswith("--")), parts[0])
    return re.split(r" (?=--)|=", options)[0]


def assignment_line(options: Sequence[Option], text: str, argv: Sequence[str]) -> str | None:
    """The option for a bare `KEY=VALUE`, a setting's or one of another tool; None: unknown."""
    match = _ASSIGNMENT.fullmatch(text)
    if match is None or Path(text).exists():
        return None
    key, value = match.groups()
    if key in names("keys"):
        return f"--set {shlex.quote(f'{key}={value}')}"
    return nearest_option(options, f"--{key}", value, argv)[1]


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
