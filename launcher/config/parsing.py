"""Parses the arguments of a command: split, collect, check."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gearshift.launcher.base.diagnostics import Diagnostic, shown
from gearshift.launcher.base.disk import SHOWN, problem_of
from gearshift.launcher.config.command_line import (
    END,
    HELP,
    INPUT,
    PATH_VALUES,
    Command,
    CommandLine,
    command_line_error,
    split_options,
)
from gearshift.launcher.config.provenance import CLI_LAYER, STAGED_MODE, CliArgs, Origin, Setting

_UNDECODED = re.compile("[\udc80-\udcff]")
"""A byte that Python could not decode, as it stands in an argument."""


@dataclass
class _Arguments:
    """The arguments of a command, sorted by what they are."""

    values: dict[str, list[str]] = field(default_factory=dict)
    """By flag; `true` for an option without a value."""
    mode: str | None = None
    """What the last option that selects a mode names, and its flag."""
    mode_option: str = "--mode"
    positionals: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def last(self, flag: str) -> str | None:
        """The value of an option that counts: a later one overrides an earlier one."""
        values = self.values.get(flag)
        return values[-1] if values else None


def parse(command: Command, argv: Sequence[str]) -> CommandLine:
    """Parse the arguments of `command`; all errors are in the result's `diagnostics`."""
    end = len(argv)
    if command.passthrough is not None and END in argv:
        end = argv.index(END)
    words = argv[:end]
    if "-h" in words or HELP.flag in words:
        return CommandLine(command, values={HELP.flag: "true"})
    undecoded = [word for word in argv if _UNDECODED.search(word)]
    if undecoded:  # a file that is written could not name it
        message = "an argument has a byte that is no UTF-8 text"
        error = command_line_error(message, shlex.join(undecoded))
        return CommandLine(command, diagnostics=[error], is_misread=True)

    arguments = _collect(command, words)
    diagnostics = arguments.diagnostics
    positionals = arguments.positionals
    if positionals or command.argument:
        from gearshift.launcher.config import input_errors  # with its suggestions

        diagnostics += input_errors.wrong_positionals(command, positionals)
    argument, *more = positionals or [""]
    # Further checks would open them.
    impossible = list(_impossible_paths(command, arguments, [argument, *more]))
    return CommandLine(
        command=command,
        argument=argument,
        args=_run_arguments(command, arguments, argument),
        values={flag: texts[-1] for flag, texts in arguments.values.items() if texts},
        diagnostics=[*diagnostics, *impossible],
        is_misread=bool(impossible or (positionals and command.reader)),
        more=more,
        passthrough=argv[end + 1 :],
        argv=list(argv),
    )


def _collect(command: Command, words: Sequence[str]) -> _Arguments:
    """Sort `words`, and note what is no argument of the command."""
    arguments = _Arguments()
    by_flag = {option.flag: option for option in (*command.options, HELP)}
    flag = ""
    for parts, is_known in split_options(command, words):
        is_after_set = flag == "--set"
        flag, equals, value = parts[0].partition("=")
        if "" in parts or (equals and not value):  # most likely a variable that is not set
            message = f"an empty value after '{flag}'"
            arguments.diagnostics.append(command_line_error(message, shlex.join(parts), value=""))
        option = by_flag.get(flag)
        if option is None and is_known:
            key = arguments.last("--set")
            if is_after_set and key is not None and "=" not in key:  # --set KEY VALUE
                arguments.values["--set"].pop()
                fix = shlex.join(["--set", f"{key}={parts[0]}"])
                typed = f"--set {key} {parts[0]}"
                diagnostic = command_line_error(
                    f"'{typed}' has no '='", typed, key=key, fix=fix, replaces=(parts[0],)
                )
                arguments.diagnostics.append(diagnostic)
            else:
                arguments.positionals.append(parts[0])
            continue
        if option is None:
            from gearshift.launcher.config import input_errors

            arguments.diagnostics.append(input_errors.unknown_option(command, parts))
            continue
        has_value = bool(equals) or len(parts) > 1
        if has_value != (option.metavar is not None):
            needs = "needs a" if option.metavar else "takes no"
            message = f"option '{flag}' {needs} value"
            arguments.diagnostics.append(command_line_error(message, flag, allowed=option.form))
            continue
        if option.metavar is None:
            value = "true"
        elif not equals:
            value = parts[1]
        arguments.values.setdefault(flag, []).append(value)
        if option.mode or option.key == "mode":
            arguments.mode = option.mode or value
            arguments.mode_option = flag
    return arguments


def _impossible_paths(
    command: Command, arguments: _Arguments, positionals: Sequence[str]
) -> Iterator[Diagnostic]:
    """The errors of paths that no file can have; those of settings are found by key."""
    texts = [(command.name, text) for text in positionals]
    for option in command.options:
        if option.key is None and option.values in PATH_VALUES and option.flag != INPUT:
            texts += [(option.flag, text) for text in arguments.values.get(option.flag, ())]
    for name, text in texts:
        problem = problem_of(text)
        if problem:
            message = f"{name} {shown(text[:SHOWN])} {problem}"
            yield Diagnostic(message, value=text, where=f"command line: {name} {text}")


def _run_arguments(command: Command, arguments: _Arguments, argument: str) -> CliArgs:
    """The arguments of a run; of other commands those of the run that they name."""
    mode = arguments.mode
    mode_option = arguments.mode_option
    filled: dict[str, Setting] = {}
    stage = arguments.last("--stage")
    if stage is not None:
        typed = f"--stage {stage}"
        filled["stages"] = Setting([stage], Origin(CLI_LAYER, typed))
        if mode is None:
            mode = STAGED_MODE
            mode_option = typed
    options: dict[str, tuple[str, ...]] = {}
    for option in command.options:
        texts = arguments.values.get(option.flag)
        if texts and option.key not in (None, "mode", "engine.name"):
            options[option.key] = (option.flag, *(texts if option.repeats else texts[-1:]))
    is_resume = command.name == "resume"
    return CliArgs(
        model=arguments.last("--model"),
        mode=mode,
        mode_option=mode_option,
        engine=arguments.last("--engine"),
        configs=[Path(path) for path in arguments.values.get("--config", ())],
        sets=arguments.values.get("--set", []),
        options=options,
        resume=argument or None if is_resume else arguments.last("--resume"),
        resume_option=command.name if is_resume else "--resume",
        reset=arguments.values.get("--reset", []),
        filled=filled,
        weights=arguments.last("--from"),
        force="--force" in arguments.values,
    )
