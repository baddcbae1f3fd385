"""The error of a first argument that is no command, with the line that does what was meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.config import other_tools
from launcher.config.command_line import DEFAULT, Command, CommandLine, nearest_option, parse
from launcher.config.options import INPUT, names
from launcher.config.provenance import find_node
from launcher.config.settings_file import node_value, read_settings_file
from launcher.resume.find import model_of, newest_saved
from launcher.run_folder import run_folder
from models.catalog import FAMILIES

_RUN = "RUN"
_HELP = "help"
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.]*=")
"""A first word KEY=VALUE, as a shell takes variables or another tool its settings."""


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
    """A command line whose first argument is no command: that error, and those of the rest."""
    name, rest = argv[0], list(argv[1:])
    guess = _guess(name, rest, commands)
    if guess is not None and guess.argv and guess.argv[0] in commands:
        parsed = parse(commands[guess.argv[0]], guess.argv[1:])
    else:
        parsed = parse(commands[DEFAULT], rest)
    error = Diagnostic(
        f"unknown command '{name}'",
        value=name,
        where="command line, first argument",
        allowed=f"{', '.join(commands)}; or options of {DEFAULT}",
        did_you_mean=None if guess is None else guess.did_you_mean,
        fix=None if guess is None else guess.fix,
        order=(999, 0),
    )
    return replace(parsed, diagnostics=[error, *parsed.diagnostics])


def _guess(name: str, rest: Sequence[str], commands: Mapping[str, Command]) -> _Guess | None:
    if (entry := other_tools.entry_of("commands", name)) is not None:
        return _of_table(entry["line"], entry.get("remark", ""), name, rest)
    named = other_tools.named_option(name)
    if named is None and _ASSIGNMENT.match(name) and not Path(name).exists():
        named = _of_assignment(name, rest, commands)
    if named is None and (Path(name).exists() or name.endswith(".py")):
        named = other_tools.model_line(name)
    if named is None and (near := nearest_match(name, [*commands, _HELP])) is not None:
        return _of_command(near, rest, commands)
    named = named or other_tools.model_line(name)
    return None if named is None else _of_options(named, rest)


def _of_assignment(name: str, rest: Sequence[str], commands: Mapping[str, Command]) -> str | None:
    """The option for a first word `KEY=VALUE`: a setting's, or as for the option `--KEY`."""
    key, _, value = name.partition("=")
    if key in names("keys"):
        return f"--set {shlex.quote(name)}"
    _, line = nearest_option(commands[DEFAULT], f"--{key}", value, [name, *rest])
    return line


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


def _of_command(near: str, rest: Sequence[str], commands: Mapping[str, Command]) -> _Guess:
    takes_run = near in commands and commands[near].argument == _RUN
    if not takes_run or any(not word.startswith("-") for word in rest):
        return _Guess([near, *rest], near)
    return _of_run([near], newest_saved(), rest)


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
    first, _, more = other_tools.filled(line, word=name).partition("  ")
    argv = [*shlex.split(first), *rest]
    meant = argv[0] if first and not first.startswith("-") else first
    return _Guess(argv, meant or DEFAULT, remark=more or remark)


def _run_in(words: Sequence[str]) -> str | None:
    """The first argument if it names something that exists, as a run would. Reads the disk."""
    is_path = bool(words) and not words[0].startswith("-") and Path(words[0]).exists()
    return words[0] if is_path else None


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
