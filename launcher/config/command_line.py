"""A command line: the record of a command, and its parsed arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from launcher.base.diagnostics import Diagnostic, shown
from launcher.base.disk import SHOWN, problem_of
from launcher.config.options import (
    BY_FLAG,
    DEFAULT,
    EMPTY,
    FORCE,
    FROM,
    HELP,
    INPUT,
    JSON,
    OPTIONS,
    PATH_VALUES,
    RESUME,
    STAGE,
    VERSION,
    Command,
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


def parse(command: Command, argv: Sequence[str]) -> CommandLine:
    """Parse the arguments of `command`; all errors are in the result's `diagnostics`."""
    diagnostics: list[Diagnostic] = []
    arguments, passthrough = list(argv), []
    if command.passthrough is not None and "--" in arguments:
        index = arguments.index("--")
        arguments, passthrough = arguments[:index], arguments[index + 1 :]
    if "-h" in arguments or HELP.flag in arguments:
        return CommandLine(command, "", CliArgs(), frozenset({HELP.flag}), None, diagnostics)
    if any(EMPTY.fullmatch(argument) for argument in arguments):
        diagnostics += _errors().empty_values(arguments)
    by_flag = {option.flag: option for option in command.options}
    given: dict[str, list[str]] = {}
    positionals: list[str] = []
    modes: dict[str, str] = {}
    for position, words, is_known in split_options(command, arguments):
        flag, is_joined, value = words[0].partition("=")
        option = by_flag.get(flag)
        if not is_known:
            diagnostics.append(_errors().unknown_option(command, words, position, arguments))
        elif option is None:
            positionals.append(words[0])
        elif (option.metavar is None) == bool(is_joined or words[1:]):
            diagnostics.append(_errors().unreadable(option))
        else:
            value = value if is_joined else words[-1]
            given.setdefault(flag, []).append(value)
            if option.mode or option.key == "mode":
                modes.pop(flag, None)  # of one option, the last value counts
                modes[flag] = option.mode or value
    if len({*modes.values()}) > 1:
        diagnostics.append(_errors().second_mode(modes))
    most = len(positionals) if command.repeats_argument else bool(command.argument) + bool(command.operand)
    diagnostics += [_errors().unexpected(command, argument) for argument in positionals[most:]]
    argument, *more = positionals[:most] or [""]
    operand = more.pop() if command.operand and more else ""
    if not argument and command.argument and command.requires_argument:
        if not positionals:  # an empty one is an error of its own
            diagnostics.append(_errors().missing_argument(command, command.argument, command.name))
    elif argument and command.choices and argument not in command.choices:
        diagnostics.append(_errors().wrong_argument(command, argument))
    elif command.requires_operand(argument) and not operand:
        call = f"{command.name} {argument or command.choices[0]}"
        diagnostics.append(_errors().missing_argument(command, command.operand, call))
    if impossible := list(_impossible_paths(command, [argument, *more, operand], given)):
        diagnostics += impossible
        command = replace(command, adds_errors=False)  # further checks would open the paths
    shared = {flag: BY_FLAG[flag] for flag in given if flag in BY_FLAG}
    return CommandLine(
        command=command,
        argument=argument,
        args=_cli_args(command, given, list(modes.items()), argument),
        flags=frozenset(
            flag for flag in given if not (by_flag[flag].metavar or by_flag[flag].key or by_flag[flag].mode)
        ),
        out=Path(given["--out"][-1]) if given.get("--out", [""])[-1] else None,
        diagnostics=diagnostics,
        values={
            flag: values[-1]
            for flag, values in given.items()
            if by_flag[flag].metavar and (flag not in shared or (shared[flag].key and not by_flag[flag].key))
        },
        more=more,
        operand=operand,
        passthrough=passthrough,
        argv=list(argv),
    )


def _impossible_paths(
    command: Command, arguments: Sequence[str], given: Mapping[str, Sequence[str]]
) -> Iterator[Diagnostic]:
    """The errors of arguments, and of options for files, that no file can have as its name."""
    texts: list[tuple[str, str | None, str, str]] = [(command.name, None, text, text) for text in arguments]
    for option in command.options:
        # --set is checked by its key; --input may be a text
        if option.metavar and option.values in PATH_VALUES and option.flag != INPUT:
            values = given.get(option.flag, [])
            for text in values if option.repeats else values[-1:]:
                moved, _, folder = text.partition("=") if option.flag == "--set" else (option.key, "", text)
                texts.append((option.flag, moved, text, folder))
    for name, key, text, path in texts:
        if problem := path and problem_of(path):
            where = f"command line: {name} {text}"
            yield Diagnostic(f"{name} {shown(text[:SHOWN])} {problem}", key=key, value=text, where=where)


def _errors() -> ModuleType:
    """The module of these errors, which only they need."""
    from launcher.config import argument_errors

    return argument_errors


def _cli_args(
    command: Command, given: Mapping[str, list[str]], modes: Sequence[tuple[str, str]], argument: str
) -> CliArgs:
    """The settings among the parsed arguments."""

    def last(flag: str) -> str | None:
        return given[flag][-1] if flag in given else None

    stage, is_resume = last(STAGE.flag), command.name == "resume"
    of_stage = f"{STAGE.flag} {stage}"
    mode_option, mode = modes[-1] if modes else ("--mode", None) if stage is None else (of_stage, STAGED_MODE)
    filled = [] if stage is None else [TypedEntry("stages", [stage], Origin(CLI_LAYER, of_stage), STAGE.flag)]
    options = {}
    for option in command.options:
        values = given.get(option.flag)
        if values and option.key is not None and option.key not in ("mode", "engine.name"):
            text = ",".join(values) if option.repeats else values[-1]
            options[option.key] = (option.flag, text if option.metavar else "true")
    return CliArgs(
        model=last("--model"),
        mode=mode,
        mode_option=mode_option,
        engine=last("--engine"),
        configs=[Path(path) for path in given.get("--config", ())],
        sets=given.get("--set", []),
        options=options,
        resume=argument or None if is_resume else last(RESUME.flag),
        resume_option="resume" if is_resume else RESUME.flag,
        reset=given.get("--reset", []),
        filled=filled,
        weights=last(FROM.flag),
        force=FORCE.flag in given,
    )
