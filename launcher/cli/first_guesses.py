"""The error of a first argument that is no command, with the line that does what was meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.config import other_tools
from launcher.config.argument_errors import assignment_line, corrected
from launcher.config.command import DEFAULT, Command
from launcher.config.command_line import CommandLine, parse
from launcher.config.options import HELP, INPUT
from launcher.config.provenance import find_node
from launcher.config.settings_file import node_value, read_settings_file
from launcher.run_folder import run_folder
from launcher.run_folder.checkpoint_search import model_of, newest_saved
from models.catalog import FAMILIES

_RUN = "RUN"
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
    entry = other_tools.entry_of("commands", argv[0]) or {}
    ignored = re.compile(f"-h|{HELP.flag}|{entry.get('without', '')}")
    name, rest = argv[0], [word for word in argv[1:] if not ignored.fullmatch(word)]
    guess = _guess(name, rest, commands)
    rest = corrected(_command_of(guess, commands), rest)
    guess = _guess(name, rest, commands)
    words = rest if guess is None else list(guess.argv)
    is_command = bool(words) and words[0] in (*commands, _HELP)
    parsed = parse(_command_of(guess, commands), words[is_command:])
    error = Diagnostic(
        f"unknown command '{name}'",
        value=name,
        where="command line, first argument",
        allowed=f"{', '.join(commands)}; or options of {DEFAULT}",
        did_you_mean=None if guess is None else guess.did_you_mean,
        fix=None if guess is None else guess.fix,
        order=(0, 0),
    )
    # `main` below prints these errors alone: what else is wrong depends on what is meant.
    wrong = replace(parsed.command, module=__name__)
    return replace(parsed, command=wrong, diagnostics=[error, *parsed.diagnostics])


def main(command_line: CommandLine) -> int:
    """Raises SettingsError: the first argument is no command."""
    raise SettingsError(command_line.diagnostics)


def _command_of(guess: _Guess | None, commands: Mapping[str, Command]) -> Command:
    first = guess.argv[0] if guess is not None and guess.argv else DEFAULT
    return commands.get(first, commands[DEFAULT])


def _guess(name: str, rest: Sequence[str], commands: Mapping[str, Command]) -> _Guess | None:
    if (entry := other_tools.entry_of("commands", name)) is not None:
        return _of_table(entry["line"], entry.get("remark", ""), name, rest)
    named = other_tools.named_option(name)
    if named is None:
        named = assignment_line(commands[DEFAULT].options, name, [name, *rest])
    if named is None and (Path(name).exists() or name.endswith(".py")):
        named = other_tools.model_line(name)
    if named is None and (command := nearest_match(name, [*commands, _HELP])) is not None:
        return _of_command(command, rest, commands)
    named = named or other_tools.model_line(name)
    return None if named is None else _of_options(named, rest)


def _of_options(line: str, rest: Sequence[str]) -> _Guess:
    """The guess of a line of options, or of another program that makes what a run needs."""
    first, _, remark = line.partition("  ")
    if line.startswith(other_tools.REMOVE):
        return _Guess(rest, DEFAULT, line=line)
    after = "".join(f" {word}" for word in map(shlex.quote, rest))
    if first.startswith("--"):
        return _Guess([*shlex.split(first), *rest], first, remark=remark)
    if first.startswith(PROGRAM):
        return _Guess(shlex.split(first)[3:], first.removeprefix(f"{PROGRAM} "), remark=remark)
    *before, options = line.split("  ")
    whole = "  ".join([*before, f"{PROGRAM} {options}{after}"])
    return _Guess([*shlex.split(options), *rest], options, line=whole)


def _of_command(command: str, rest: Sequence[str], commands: Mapping[str, Command]) -> _Guess:
    takes_run = command in commands and commands[command].argument == _RUN
    if not takes_run or any(not word.startswith("-") for word in rest):
        return _Guess([command, *rest], command)
    return _of_run([command], newest_saved(), rest)


def _of_run(before: Sequence[str], run: str | None, after: Sequence[str]) -> _Guess:
    """The guess of a command that uses a run; without one, how to train one."""
    argv = [*before, run or _RUN, *after]
    if run is not None:
        return _Guess(argv, argv[0])
    remark = f"trains a model; then  {PROGRAM} {shlex.join(argv)}"
    return _Guess(argv, argv[0], line=PROGRAM, remark=remark)


def _of_table(line: str, remark: str, name: str, rest: Sequence[str]) -> _Guess:
    """The guess of a line of the table of other tools."""
    before, has_run, after = line.partition("{run}")
    if has_run:
        run, words = _run_in(rest), list(rest)
        if run is not None:
            words = words[1:]
        else:
            run = newest_saved()
        if before.strip() == "predict":
            words = _with_input(run, words)
        guess = _of_run(before.split(), run, [*after.split(), *words])
        return guess if guess.remark else replace(guess, remark=remark)
    model = other_tools.model_typed(rest)
    of_model = other_tools.model_line(model) if model and "{folder}" in line else None
    if of_model is not None:  # `finetune --model gpt2`: that model, not the one of a folder here
        without = [word for word in rest if word not in ("--model", model, f"--model={model}")]
        options = line.replace(other_tools.FOLDER.strip(), "")
        return _of_options(of_model, [*shlex.split(options), *without])
    first, _, more = other_tools.filled(line, word=name).partition("  ")
    argv = [*shlex.split(first), *rest]
    meant = argv[0] if first and not first.startswith("-") else first
    return _Guess(argv, meant or DEFAULT, remark=more or remark)


def _run_in(words: Sequence[str]) -> str | None:
    """The first argument if it is a path, as that of a run would be. Reads the disk."""
    first = words[0] if words and not words[0].startswith("-") else ""
    is_path = bool(first) and (Path(first).exists() or bool(_PATH.fullmatch(first)))
    return first if is_path else None


def _with_input(run: str | None, words: Sequence[str]) -> list[str]:
    """The arguments of `predict` after the run: a bare one is what it reads. Reads the disk."""
    if words and not words[0].startswith("-"):
        return [INPUT, *words]
    if run is None or any(word.partition("=")[0] == INPUT for word in words):
        return list(words)
    try:
        root = read_settings_file(Path(run) / run_folder.SETTINGS)
    except SettingsError:
        return list(words)
    family = FAMILIES.get(str(model_of(root)[0]))
    if family is None or family.prompts:
        return list(words)
    data = find_node(root, "data.path")
    path = "" if data is None else str(node_value(data))
    return [INPUT, path if Path(path).exists() else "FILE", *words]
