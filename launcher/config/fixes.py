"""Fixes as whole command lines: what was typed, with the options of a fix in their places."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gearshift.launcher.base.diagnostics import Diagnostic
from gearshift.launcher.config.command_line import END, Command, CommandLine, split_options


def as_commands(command_line: CommandLine, diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """The diagnostics with fixes that run as they are: the command line as it should be.

    All errors share one command line, which has the fixes of all. Options that the command does not
    have become a hint; a fix that changes nothing is left out.
    """
    command = command_line.command
    argv = list(command_line.argv)
    corrected = argv
    checked = []
    for diagnostic in diagnostics:
        is_part = _is_part(diagnostic)
        if is_part and not _is_known(command, shlex.split(diagnostic.fix or "")):
            diagnostic = replace(diagnostic, fix=None, hint=diagnostic.hint or diagnostic.fix)
        elif is_part and diagnostic.severity == "error":
            corrected = _corrected(command, corrected, diagnostic)
        checked.append(diagnostic)
    complete = []
    for diagnostic in checked:
        if _is_part(diagnostic):
            words = corrected
            if diagnostic.severity == "warning":
                words = _corrected(command, argv, diagnostic)
            fix = shlex.join([*shlex.split(command.call), *words])
            diagnostic = replace(diagnostic, fix=None if words == argv else fix)
        complete.append(diagnostic)
    return complete


def _is_known(command: Command, words: Sequence[str]) -> bool:
    """Whether the command takes the options `words`."""
    if words[:1] == [END]:
        return command.passthrough is not None
    return all(known for _, known in split_options(command, words))


def _is_part(diagnostic: Diagnostic) -> bool:
    """Whether the fix changes what was typed, and is no command of its own."""
    fix = diagnostic.fix
    return fix is not None and (bool(diagnostic.replaces) or fix.startswith("-"))


def _corrected(command: Command, argv: Sequence[str], diagnostic: Diagnostic) -> list[str]:
    """The arguments with a fix: in the place of what it replaces, or else at the end."""
    new = shlex.split(diagnostic.fix or "")
    corrected: list[str] = []
    if new and not new[0].startswith("-"):  # another argument, or value of an option
        for word in argv:
            corrected += new if word in diagnostic.replaces else [word]
        return corrected
    names = set(diagnostic.replaces)
    for words, _ in split_options(command, new):
        names.add(_name(command, words))
    end = len(argv)
    if command.passthrough is not None and END in argv:
        end = argv.index(END)
    others = [*argv[end:]]
    if new[:1] == [END]:
        others = [END, *others[1:], *new[1:]]
        new = []
    for words, _ in split_options(command, argv[:end]):
        if names.isdisjoint((_name(command, words), words[0], " ".join(words))):
            corrected += words
        else:
            corrected += new
            new = []
    return [*corrected, *new, *others]


def _name(command: Command, words: Sequence[str]) -> str:
    """What an argument sets, by whatever option: `optim.lr`; else its option, `--out`."""
    flag, _, value = words[0].partition("=")
    if len(words) > 1:
        value = words[1]
    if flag == "--set":
        return value.partition("=")[0].strip()
    for option in command.options:
        if option.flag == flag:
            if option.mode is not None:
                return "mode"
            if option.key is None and option.repeats:  # the others of its name stay
                return f"{flag} {value}"
            return option.key or flag
    return flag
