"""A command line: the commands' record, the parsed arguments, and an error for each wrong one."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, nearest_match
from launcher.config.meant_options import assignment_line, fits, nearest_option
from launcher.config.options import (
    BY_FLAG,
    FORCE,
    HELP,
    OPTIONS,
    RESUME,
    STAGE,
    VERSION,
    Option,
    names,
)
from launcher.config.other_tools import (
    meant,
    model_line,
)
from launcher.config.provenance import STAGED_MODE, CliArgs, ImpliedSetting
from slurm.sbatch import option_of

DEFAULT = "run"
"""The command of a command line that names none."""
_NUMBER = re.compile(r"-[0-9.]")
_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""
_EXAMPLES = {"NAME": "my_task"}
"""Example values of positional arguments."""


@dataclass(frozen=True)
class Command:
    """One command of the command line; its module is imported only when it runs."""

    name: str
    sentence: str
    module: str
    """Has `main(command_line) -> int`, the exit code."""
    options: tuple[Option, ...]
    argument: str | None = None
    """The positional argument, as help shows it."""
    choices: tuple[str, ...] = ()
    """The valid values of the argument; empty: any value."""
    allowed: str = ""
    """Describes the valid values if `choices` is empty."""
    requires_argument: bool = True
    repeats_argument: bool = False
    """Whether there may be several."""
    operand: str | None = None
    """The second positional argument, as help shows it; required."""
    without_operand: tuple[str, ...] = ()
    """The `choices` that take no operand."""
    passthrough: str | None = None
    """The program that receives the options after `--`; None: `--` is not accepted."""

    @property
    def call(self) -> str:
        """The command as a user types it."""
        return PROGRAM if self.name == DEFAULT else f"{PROGRAM} {self.name}"

    def takes_operand(self, argument: str | None) -> bool:
        """Whether an operand must follow `argument`."""
        return self.operand is not None and argument not in self.without_operand


RUN = Command(
    DEFAULT,
    "train a model; the default command, also: train",
    "launcher.commands.run",
    (*OPTIONS, VERSION),
)


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    command: Command
    argument: str | None
    """The RUN of resume, the KEY of explain, the WHAT of list, the SHELL of completion."""
    args: CliArgs
    flags: frozenset[str]
    """Given options without a value that are not settings: --dry-run, --json, --schema, --help."""
    out: Path | None
    diagnostics: Sequence[Diagnostic]
    values: Mapping[str, str] = field(default_factory=dict)
    """Values of options that only this command has, such as "--format": "hf"."""
    more: Sequence[str] = ()
    """The other RUNs of report and watch."""
    operand: str | None = None
    """The PATH of data check."""
    passthrough: Sequence[str] = ()
    """Options after `--`, for another program."""
    argv: Sequence[str] = ()
    """All arguments after the command's name, as typed."""
    corrected: Sequence[str] = ()
    """`argv` with the options of this program instead of those of another tool."""


def parse(
    command: Command,
    argv: Sequence[str],
    example_run: Callable[[], str | None] = lambda: None,
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
        return CommandLine(command, None, CliArgs(), frozenset({HELP.flag}), None, diagnostics)
    diagnostics += _empty(arguments)
    known, corrected = _known(command, arguments, diagnostics)
    parsed = _parse(command, known, diagnostics, example_run)
    return CommandLine(
        command=command,
        argument=parsed.argument,
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
            if _is_own(option) and (value := getattr(parsed, option.flag[2:], None))
        },
        more=parsed.more,
        operand=parsed.operand,
        passthrough=passthrough,
        argv=list(argv),
        corrected=corrected,
    )


def add_arguments(
    parser: argparse.ArgumentParser,
    command: Command,
    describe: Callable[[Option], str] = lambda option: "",
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


def _known(
    command: Command, argv: Sequence[str], diagnostics: list[Diagnostic]
) -> tuple[list[str], list[str]]:
    """`argv` without unknown options, of which each adds a diagnostic, and with their fixes."""
    flags = {option.flag: option for option in command.options}
    known: list[str] = []
    corrected: list[str] = []
    index = 0
    while index < len(argv):
        argument, start = argv[index], index
        index += 1
        flag = argument.partition("=")[0]
        following = argv[index] if index < len(argv) else None
        if not argument.startswith("-") or argument == "-":
            known.append(argument)
        elif flag not in flags:
            typed = None if "=" in argument or not _is_value(following) else following
            error = _unknown_option(command, argument, typed, index, argv)
            diagnostics.append(error)
            index += typed is not None
            is_line = error.fix is not None and error.fix.startswith("--")
            corrected += (
                shlex.split(str(error.fix).partition("  ")[0]) if is_line else argv[start:index]
            )
            continue
        elif "=" not in argument and following is not None and _NUMBER.match(following):
            known.append(f"{argument}={following}")  # argparse takes -1e-3 for an option
            index += 1
        else:
            known.append(argument)
        is_run = command.name == DEFAULT
        line = assignment_line(command.options, argument, argv) if is_run else None
        corrected += shlex.split(line) if line and line.startswith("--") else argv[start:index]
    return known, corrected


def _is_value(argument: str | None) -> bool:
    """Whether the argument after an unknown option is most likely its value."""
    return argument is not None and (not argument.startswith("-") or bool(_NUMBER.match(argument)))


def _parse(
    command: Command,
    argv: Sequence[str],
    diagnostics: list[Diagnostic],
    example_run: Callable[[], str | None],
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.set_defaults(argument=None, operand=None, more=[])
    add_arguments(parser, command)
    try:
        parsed, surplus = parser.parse_known_intermixed_args(list(argv))
    except argparse.ArgumentError as error:
        diagnostics.append(_unreadable(command, error))
        parsed, surplus = parser.parse_known_intermixed_args([])
    parsed.more = []
    if command.repeats_argument:
        parsed.argument, *parsed.more = parsed.argument or [None]
    if parsed.operand is not None and not command.takes_operand(parsed.argument):
        surplus, parsed.operand = [parsed.operand, *surplus], None
    diagnostics += [_unexpected(command, argument) for argument in surplus]
    diagnostics += _second_mode(getattr(parsed, "mode", []))
    if parsed.argument is None and command.argument and command.requires_argument:
        diagnostics.append(_missing_argument(command, example_run))
    elif parsed.argument and command.choices and parsed.argument not in command.choices:
        diagnostics.append(_wrong_argument(command, parsed.argument, parsed.operand))
    elif command.takes_operand(parsed.argument) and parsed.operand is None:
        diagnostics.append(_missing_operand(command))
    return parsed


def _cli_args(command: Command, parsed: argparse.Namespace) -> CliArgs:
    """The settings among the parsed arguments."""
    stage = getattr(parsed, "stage", None)
    of_stage = ("--mode", None) if stage is None else (f"{STAGE.flag} {stage}", STAGED_MODE)
    mode_option, mode = (getattr(parsed, "mode", None) or [of_stage])[-1]
    is_resume = command.name == "resume"
    return CliArgs(
        model=getattr(parsed, "model", None),
        mode=mode,
        mode_option=mode_option,
        engine=getattr(parsed, "engine.name", None),
        configs=[Path(path) for path in getattr(parsed, "config", ())],
        sets=getattr(parsed, "set", ()),
        options=dict(_short_options(command.options, vars(parsed))),
        resume=parsed.argument if is_resume else getattr(parsed, "resume", None),
        resume_option="resume" if is_resume else RESUME.flag,
        reset=getattr(parsed, "reset", ()),
        filled=[]
        if stage is None
        else [ImpliedSetting("stages", [stage], STAGE.flag, of_stage[0])],
        weights=getattr(parsed, "from", None),
        force=getattr(parsed, FORCE.flag, False),
    )


def _short_options(
    options: Sequence[Option], parsed: Mapping[str, Any]
) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for option in options:
        if option.key is None or option.key in ("mode", "engine.name"):
            continue
        dest = option.flag[2:] if option.repeats else option.key
        value: Any = parsed[option.flag if option.metavar is None else dest]
        text = ",".join(value) if option.repeats else "true" if value is True else value
        if value not in (None, False, []):
            found.append((option.key, (option.flag, str(text))))
    return found


def _is_own(option: Option) -> bool:
    """Whether `run` lacks the option, or only there it is a setting."""
    shared = BY_FLAG.get(option.flag)
    return shared is None or (shared.key is not None and option.key is None)


def _unknown_option(
    command: Command, argument: str, following: str | None, index: int, argv: Sequence[str]
) -> Diagnostic:
    """The error of an unknown option; `following` is most likely its value."""
    flag, is_joined, value = argument.partition("=")
    flags = [option.flag for option in command.options] + [HELP.flag]
    theirs = option_of(argument) if command.passthrough is not None else None
    if theirs is not None and f"--{theirs}" not in flags:
        return _error(
            f"option '{flag}' belongs to {command.passthrough}, not to {command.name}",
            argument,
            value=argument,
            allowed=f"options of {command.passthrough} at the end, after  -- ",
            fix=_passed_on(command, argument, argv),
            order=(_ORDER, index),
        )
    typed = value if is_joined else following
    word = flag
    if theirs is not None and not argument.startswith("--"):
        # sbatch's letter for one of our options: `-o here`, `-ohere`
        word, typed = f"--{theirs}", argument[2:] or following
    near, fix = nearest_option(command.options, word, typed, argv)
    return _error(
        f"unknown option '{flag}'",
        argument,
        value=flag,
        allowed=f"{len(flags)} options; see  {command.call} --help",
        did_you_mean=near,
        fix=fix,
        order=(_ORDER, index),
    )


def _passed_on(command: Command, argument: str, argv: Sequence[str]) -> str:
    """The command line with an option of the other program behind its dashes."""
    ours = [word for word in argv if word not in (argument, "--")]
    return f"{command.call} {shlex.join([*ours, '--', argument])}"


def _error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line."""
    place = {"where": f"command line: {where}", "order": (_ORDER, 0)}
    return Diagnostic(message, **(place | parts))


def _unreadable(command: Command, error: argparse.ArgumentError) -> Diagnostic:
    """The error of an option without its value, or with a value that it does not take."""
    flag = error.argument_name or ""
    option = next((option for option in command.options if option.flag == flag), None)
    takes_value = option is not None and option.metavar is not None
    message = f"option '{flag}' needs a value" if takes_value else f"option '{flag}' takes no value"
    form = f"{flag} {option.metavar}" if option and takes_value else flag
    return _error(message, flag, allowed=form)


def _unexpected(command: Command, argument: str) -> Diagnostic:
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


def _empty(argv: Sequence[str]) -> list[Diagnostic]:
    """The errors of empty values: most likely a variable of the shell that is not set."""
    found = []
    for before, argument in zip(["", *argv], argv, strict=False):
        if argument == "":
            after = f" after '{before}'" if before else ""
            found.append(_error(f"an empty value{after}", f'{before} ""'.strip(), value=""))
        elif argument.startswith("--") and argument.endswith("=") and argument.count("=") == 1:
            found.append(_error(f"an empty value after '{argument}'", argument, value=""))
    return found


def _second_mode(modes: Sequence[tuple[str, str]]) -> list[Diagnostic]:
    """The error of options that select different modes; of one option, the last value counts."""
    last = dict(modes)
    if len(set(last.values())) < 2:
        return []
    one, two = dict.fromkeys(last.values())
    message = f"mode is set twice, to {one} and to {two}"
    where = ", and ".join(f"--mode {m}" if o == "--mode" else o for o, m in last.items())
    return [_error(message, where, key="mode", value=two, fix="remove one of them")]


def _missing_argument(command: Command, example_run: Callable[[], str | None]) -> Diagnostic:
    name = command.argument or ""
    example = command.choices[0] if command.choices else _EXAMPLES.get(name, name)
    run = example_run() if name == "RUN" else None
    more = f" {command.operand}" if command.operand else ""
    allowed = ", ".join(command.choices) or command.allowed
    message = f"{command.name} requires {name}"
    fix = f"{command.call} {shlex.quote(run) if run else example}{more}"
    if name == "RUN" and run is None:
        fix = f"{PROGRAM}  trains a model; then  {fix}"
    return _error(message, command.name, allowed=allowed, fix=fix)


def _missing_operand(command: Command) -> Diagnostic:
    call = f"{command.name} {command.choices[0]}"
    allowed = f"{PROGRAM} {call} {command.operand}"
    return _error(f"{call} requires {command.operand}", call, allowed=allowed)


def _wrong_argument(command: Command, argument: str, operand: str | None) -> Diagnostic:
    near = nearest_match(argument, command.choices)
    meant = near or (command.choices[0] if command.requires_argument else "")
    if command.takes_operand(meant):
        meant += f" {shlex.quote(operand or command.operand or '')}"
    return _error(
        f"unknown {command.argument} {argument!r}",
        f"{command.name} {argument}",
        value=argument,
        allowed=", ".join(command.choices),
        did_you_mean=near,
        fix=f"{command.call} {meant}".rstrip(),
    )
