"""The error of a first argument that is no command, with the line that does what was meant."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, fold, nearest_match
from launcher.config.argument_errors import assignment_line, corrected
from launcher.config.command import DEFAULT, Command
from launcher.config.command_line import CommandLine, parse
from launcher.config.foreign_words import OF_FOLDER, OTHERS, REMOVE, filled, word_files
from launcher.config.model_lines import model_line, named_option, typed_model
from launcher.config.options import HELP, INPUT
from launcher.run_folder.checkpoint_search import newest_saved

_HELP = "help"
_PATH = re.compile(r"[\w.-]*(/[\w.-]*)+")


@dataclass(frozen=True)
class _Guess:
    """The arguments that were probably meant."""

    argv: Sequence[str]
    """A command and its arguments, or options of a run."""
    did_you_mean: str
    line: str | None = None
    """The line to type, if it is not the program with `argv`."""
    remark: str = ""

    @property
    def fix(self) -> str:
        line = self.line or f"{PROGRAM} {shlex.join(self.argv)}".rstrip()
        return f"{line}  {self.remark}" if self.remark else line


def unknown_command(argv: Sequence[str], commands: Mapping[str, Command]) -> CommandLine:
    """A command line whose first argument is no command: that error, with one line to type.

    What else is wrong and not right in that line has an error of its own.
    """

    def command_of(guess: _Guess | None) -> Command:
        first = guess.argv[0] if guess is not None and guess.argv else DEFAULT
        return commands.get(first, commands[DEFAULT])

    name = argv[0]
    entries = word_files()[OTHERS].commands
    entry = next((e for e in entries if fold(name) in map(fold, e["words"])), {})
    ignored = re.compile(f"-h|{HELP.flag}|{entry.get('without', '')}")
    rest = [word for word in argv[1:] if not ignored.fullmatch(word)]
    rest = corrected(command_of(_guess(name, rest, entry, commands)), rest)
    guess = _guess(name, rest, entry, commands)
    words = rest if guess is None else list(guess.argv)
    is_command = bool(words) and words[0] in (*commands, _HELP)
    parsed = parse(command_of(guess), words[is_command:])
    error = Diagnostic(
        f"unknown command '{name}'",
        value=name,
        where="command line, first argument",
        allowed=f"{', '.join(commands)}; or options of {DEFAULT}",
        did_you_mean=None if guess is None else guess.did_you_mean,
        fix=None if guess is None else guess.fix,
        order=(0, 0),
    )
    # These errors are printed alone: what else is wrong depends on what is meant.
    alone = replace(parsed.command, adds_errors=False)
    return replace(parsed, command=alone, diagnostics=[error, *parsed.diagnostics])


def _guess(
    name: str, rest: Sequence[str], entry: Mapping[str, str], commands: Mapping[str, Command]
) -> _Guess | None:
    """`entry`: that of the table of other tools' commands, or empty."""
    if entry:
        return _of_table(entry["line"], entry.get("remark", ""), name, rest)
    line = named_option(name) or assignment_line(commands[DEFAULT].options, name, [name, *rest])
    if line is None and (os.path.exists(name) or name.endswith(".py")):
        line = model_line(name)
    if line is None and (command := nearest_match(name, [*commands, _HELP])) is not None:
        takes_run = command in commands and commands[command].argument == "RUN"
        if takes_run and all(word.startswith("-") for word in rest):
            return _of_run([command], newest_saved(), rest)
        return _Guess([command, *rest], command)
    line = line or model_line(name)
    return None if line is None else _of_options(line, rest)


def _of_options(line: str, rest: Sequence[str]) -> _Guess:
    """The guess of a line of options, or of another program that makes what a run needs."""
    first, _, remark = line.partition("  ")
    if line.startswith(REMOVE):
        return _Guess(rest, DEFAULT, line=line)
    if first.startswith("--"):
        return _Guess([*shlex.split(first), *rest], first, remark=remark)
    if first.startswith(PROGRAM):
        return _Guess(shlex.split(first)[3:], first.removeprefix(f"{PROGRAM} "), remark=remark)
    *before, options = line.split("  ")
    whole = "  ".join([*before, " ".join([PROGRAM, options, *map(shlex.quote, rest)])])
    return _Guess([*shlex.split(options), *rest], options, line=whole)


def _of_run(before: Sequence[str], run: str | None, after: Sequence[str]) -> _Guess:
    """The guess of a command that uses a run; without one, how to train one."""
    argv = [*before, run or "RUN", *after]
    if run is not None:
        return _Guess(argv, argv[0])
    remark = f"trains a model; then  {PROGRAM} {shlex.join(argv)}"
    return _Guess(argv, argv[0], line=PROGRAM, remark=remark)


def _of_table(line: str, remark: str, name: str, rest: Sequence[str]) -> _Guess:
    """The guess of a line of the table of other tools. Reads the disk."""
    before, has_run, after = line.partition("{run}")
    if has_run:
        words = list(rest)
        is_run = bool(words) and (Path(words[0]).exists() or bool(_PATH.fullmatch(words[0])))
        run = words.pop(0) if is_run else newest_saved()
        if before.strip() == "predict" and words and not words[0].startswith("-"):
            words = [INPUT, *words]
        guess = _of_run(before.split(), run, [*after.split(), *words])
        return guess if guess.remark else replace(guess, remark=remark)
    model = typed_model(rest)
    of_model = model_line(model) if model and "{folder}" in line else None
    if of_model is not None:  # `finetune --model gpt2`: that model, not the one of a folder here
        without = [word for word in rest if word not in ("--model", model, f"--model={model}")]
        return _of_options(of_model, [*shlex.split(line.replace(OF_FOLDER, "")), *without])
    first, _, more = filled(line, word=name).partition("  ")
    argv = [*shlex.split(first), *rest]
    command = argv[0] if first and not first.startswith("-") else first
    return _Guess(argv, command or DEFAULT, remark=more or remark)
