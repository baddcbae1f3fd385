"""The command line parser: choose the command, and parse its arguments."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic, nearest_match
from gearshift.launcher.config.command_line import DEFAULT, HELP, RUN, CommandLine
from gearshift.launcher.config.parsing import parse

_HELP = "help"
"""`help COMMAND` is `COMMAND --help`."""


def read(argv: Sequence[str]) -> CommandLine:
    """Parse a command line; all errors are in the result's `diagnostics`."""
    if argv and argv[0] == _HELP:
        argv = [*argv[1:], HELP.flag]
    if not argv or argv[0].startswith("-"):
        return parse(RUN, argv)
    # With the options of all other commands.
    from gearshift.launcher.commands.catalog import ALIASES, COMMANDS

    name, *words = argv
    command = COMMANDS.get(ALIASES.get(name, name))
    if command is not None:
        return parse(command, words)
    nearest = nearest_match(name, [*COMMANDS, *ALIASES, _HELP])
    error = Diagnostic(
        f"unknown command '{name}'",
        value=name,
        where="command line, first argument",
        allowed=f"{', '.join(COMMANDS)}; or options of {DEFAULT}",
        did_you_mean=nearest,
        fix=nearest and f"{PROGRAM} {shlex.join([nearest, *words])}",
    )
    # It is printed alone: what else is wrong depends on what is meant.
    parsed = parse(RUN, words)
    alone = replace(parsed.command, adds_errors=False)
    return replace(parsed, command=alone, diagnostics=[error])
