"""What commands print: JSON for programs or text for people, warnings and failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.diagnostics import Diagnostic, render, say
from gearshift.launcher.config.command_line import CommandLine
from gearshift.training.logging.encoding import encode, printable


def show(command_line: CommandLine, content: Any, text: str) -> int:
    """Print `content` as JSON if that is asked for, or else `text`; the exit code."""
    print(encode(content, indent=2) if command_line.as_json else printable(text), flush=True)
    return exit_codes.DONE


def show_warnings(command_line: CommandLine, warnings: Sequence[Diagnostic]) -> None:
    """Print the warnings, whose fixes are whole commands, on stderr."""
    if warnings:
        from gearshift.launcher.config.fixes import as_commands

        say(render(as_commands(command_line, warnings)), sys.stderr)


def announce(command_line: CommandLine, line: str) -> None:
    """Print what takes long on stderr, to a person."""
    if not command_line.as_json and sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
