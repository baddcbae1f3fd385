"""A command line: the record of a command, and its parsed arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher.base.diagnostics import Diagnostic, shown
from launcher.base.disk import SHOWN, problem_of
from launcher.config.options import (
    BY_FLAG,
    DEFAULT,
    EMPTY,
    FORCE,
    HELP,
    INPUT,
    JSON,
    OPTIONS,
    PATH_VALUES,
    RESUME,
    STAGE,
    VERSION,
    Command,
    Option,
    split_options,
)
from launcher.config.provenance import CLI_LAYER, STAGED_MODE, CliArgs, Origin, TypedEntry

RUN = Command(
    DEFAULT,
    "train a model; the default command, also: train",
    "launcher.commands.run",
    (*OPTIONS, VERSION),
    adds_errors=True,
)


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    command: Command
    argument: str
    """The RUN of resume, the KEY of explain, the WHAT of list; empty: none was typed."""
    args: CliArgs
    flags: frozenset[str]
    """Given options without a value that are not settings: --dry-run, --json, --schema, --help."""
    out: Path | None
    diagnostics: Sequence[Diagnostic]
    values: Mapping[str, str] = field(default_factory=dict)
    """Values of options that only this command has, such as "--format": "hf"."""
    more: Sequence[str] = ()
    """The other RUNs of report and watch."""
    operand: str = ""
    """The PATH of data check, the hf:ID of data fetch; empty: none was typed."""
    passthrough: Sequence[str] = ()
    """Options after `--`, for another program."""
    argv: Sequence[str] = ()
    """All arguments after the command's name, as typed."""

    @property
    def as_json(self) -> bool:
        """Whether the output is for programs."""
        return JSON.flag in self.flags


def parse(
    command: Command, argv: Sequence[str], example_run: Callable[[], str | None] = lambda: None
) -> CommandLine:
    """Parse the arguments of `command`; all errors are in the result's `diagnostics`.

    `example_run` gives a run for the line to type, where the command needs one.
    """
    diagnostics: list[Diagnostic] = []
    arguments, passthrough = list(argv), []
    if command.passthrough is not None and "--" in arguments:
        index = arguments.index("--")
        arguments, passthrough = arguments[:index], arguments[index + 1 :]
    if "-h" in arguments or HELP.flag in arguments:
        return CommandLine(command, "", CliArgs(), frozenset({HELP.flag}), None, diagnostics)
    if any(EMPTY.fullmatch(argument) for argument in arguments):
        diagnostics += _errors().empty_values(arguments)
    parsed = _parse(command, arguments, diagnostics, example_run)
    if impossible := list(_impossible_paths(command, parsed)):
        diagnostics += impossible
        command = replace(command, adds_errors=False)  # further checks would open the paths
    return CommandLine(
        command=command,
        argument=parsed.argument or "",
        args=_cli_args(command, parsed),
        flags=frozenset(
            option.flag
            for option in command.options
            if not (option.metavar or option.key or option.mode) and getattr(parsed, option.flag)
        ),
        out=Path(parsed.out) if getattr(parsed, "out", None) else None,
        diagnostics=diagnostics,
        values={
            option.flag: value
            for option in command.options
            if (shared := BY_FLAG.get(option.flag)) is None or (shared.key and not option.key)
            if (value := getattr(parsed, option.flag[2:], None))
        },
        more=parsed.more,
        operand=parsed.operand or "",
        passthrough=passthrough,
        argv=list(argv),
    )


def add_arguments(
    parser: argparse.ArgumentParser, command: Command, describe: Callable[[Option], str] = lambda option: ""
) -> None:
    """Add the arguments of `command` to `parser`; `describe` gives the help of an option."""
    for dest, metavar in (("argument", command.argument), ("operand", command.operand)):
        if metavar is not None:
            nargs = "*" if command.repeats_argument else "?"
            parser.add_argument(dest, nargs=nargs, metavar=metavar, help=argparse.SUPPRESS)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in command.options:
        group = groups.get(option.group) or parser.add_argument_group(option.group)
        groups[option.group] = group
        group.add_argument(option.flag, help=describe(option), **_argument(option))
    group = groups.get(HELP.group) or parser.add_argument_group(HELP.group)
    group.add_argument("-h", HELP.flag, action="store_true", help=describe(HELP))


def _argument(option: Option) -> dict[str, Any]:
    """The keyword arguments of argparse's add_argument for `option`."""
    if option.mode is not None:
        const = (option.flag, option.mode)
        return {"dest": "mode", "action": "append_const", "const": const, "default": []}
    if option.metavar is None:
        return {"dest": option.flag, "action": "store_true"}
    if option.flag == "--mode":
        take: dict[str, Any] = {"type": lambda text: ("--mode", text), "action": "append"}
        return {"metavar": option.metavar, "default": [], **take}
    if option.repeats:
        dest = option.flag[2:]
        return {"metavar": option.metavar, "dest": dest, "action": "append", "default": []}
    return {"metavar": option.metavar, "dest": option.key or option.flag[2:]}


def _impossible_paths(command: Command, parsed: argparse.Namespace) -> Iterator[Diagnostic]:
    """The errors of arguments, and of options for files, that no file can have as its name."""
    arguments = [parsed.argument, *parsed.more, parsed.operand]
    texts: list[tuple[str, str | None, Any]] = [(command.name, None, arguments)]
    for option in command.options:
        # --set is checked by its key; --input may be a text
        if option.metavar and option.values in PATH_VALUES and option.flag != INPUT:
            value = getattr(parsed, (not option.repeats and option.key) or option.flag[2:])
            texts.append((option.flag, option.key, value if option.repeats else [value]))
    for name, key, values in texts:
        for text in filter(None, values):
            moved, _, folder = text.partition("=") if name == "--set" else (key, "", text)
            if problem := problem_of(folder):
                where = f"command line: {name} {text}"
                yield Diagnostic(
                    f"{name} {shown(text[:SHOWN])} {problem}", key=moved, value=text, where=where
                )


def _parse(
    command: Command,
    argv: Sequence[str],
    diagnostics: list[Diagnostic],
    example_run: Callable[[], str | None],
) -> argparse.Namespace:
    known: list[str] = []
    for position, words, is_known in split_options(command, argv):
        if is_known:
            known.append("=".join(words))
        else:
            diagnostics.append(_errors().unknown_option(command, words, position, argv))
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.set_defaults(argument=None, operand=None, more=[])
    add_arguments(parser, command)
    try:
        parsed, surplus = parser.parse_known_intermixed_args(known)
    except argparse.ArgumentError as error:
        diagnostics.append(_errors().unreadable(command, error))
        parsed, surplus = parser.parse_known_intermixed_args([])
    parsed.more = []
    if command.repeats_argument:
        parsed.argument, *parsed.more = parsed.argument or [None]
    diagnostics += [_errors().unexpected(command, argument) for argument in surplus]
    modes = dict(getattr(parsed, "mode", []))  # of one option, the last value counts
    if len({*modes.values()}) > 1:
        diagnostics.append(_errors().second_mode(modes))
    if parsed.argument is None and command.argument and command.requires_argument:
        diagnostics.append(_errors().missing_argument(command, example_run))
    elif parsed.argument and command.choices and parsed.argument not in command.choices:
        diagnostics.append(_errors().wrong_argument(command, parsed.argument, parsed.operand))
    elif command.requires_operand(parsed.argument) and parsed.operand is None:
        diagnostics.append(_errors().missing_operand(command))
    return parsed


def _errors() -> ModuleType:
    """The module of these errors, which only they need."""
    from launcher.config import argument_errors

    return argument_errors


def _cli_args(command: Command, parsed: argparse.Namespace) -> CliArgs:
    """The settings among the parsed arguments."""
    stage = getattr(parsed, "stage", None)
    of_stage = ("--mode", None) if stage is None else (f"{STAGE.flag} {stage}", STAGED_MODE)
    mode_option, mode = (getattr(parsed, "mode", None) or [of_stage])[-1]
    is_resume = command.name == "resume"
    options = {}
    for option in command.options:
        if option.key is None or option.key in ("mode", "engine.name"):
            continue
        dest = option.flag if option.metavar is None else option.key
        value: Any = getattr(parsed, option.flag[2:] if option.repeats else dest)
        if value not in (None, False, []):
            text = ",".join(value) if option.repeats else "true" if value is True else value
            options[option.key] = (option.flag, str(text))
    return CliArgs(
        model=getattr(parsed, "model", None),
        mode=mode,
        mode_option=mode_option,
        engine=getattr(parsed, "engine.name", None),
        configs=[Path(path) for path in getattr(parsed, "config", ())],
        sets=getattr(parsed, "set", ()),
        options=options,
        resume=parsed.argument if is_resume else getattr(parsed, "resume", None),
        resume_option="resume" if is_resume else RESUME.flag,
        reset=getattr(parsed, "reset", ()),
        filled=[]
        if stage is None
        else [TypedEntry("stages", [stage], Origin(CLI_LAYER, of_stage[0]), STAGE.flag)],
        weights=getattr(parsed, "from", None),
        force=getattr(parsed, FORCE.flag, False),
    )
