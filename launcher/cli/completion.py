"""The command `completion`: print a script that completes commands, options and names."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from gearshift.launcher.base import exit_codes
from gearshift.launcher.cli.help import build
from gearshift.launcher.commands.catalog import COMMANDS
from gearshift.launcher.config.command_line import DEFAULT, Command, CommandLine, Option
from gearshift.launcher.config.input_errors import names

_TOOL = "gearshift"
_ZSH_SPEC = re.compile(r"\]:([^\n]*?):\(([^()\n]*)\)")
_BASH = Path(__file__).with_suffix(".bash")


def main(command_line: CommandLine) -> int:
    """Print the script of one shell; the exit code. Raises SettingsError."""
    print(script(command_line.argument))
    return exit_codes.DONE


def script(shell: str) -> str:
    """The completion script of `shell`."""
    import shtab

    root, parsers = build()
    root.prog = _TOOL
    root.epilog = root.description = None
    _add_values(root, COMMANDS[DEFAULT])
    for name, parser in parsers.items():
        parser.prog = f"{_TOOL} {name}"
        _add_values(parser, COMMANDS[name])
    text: str = shtab.complete(root, shell)
    if shell == "zsh":
        text = _ZSH_SPEC.sub(_escape_colons, text)
    return f"{text}\n{_BASH.read_text('utf-8')}" if shell == "bash" else text


def _escape_colons(match: re.Match[str]) -> str:
    """A `]:message:(values)` in which colons are no separators; shtab escapes the help only."""
    message, values = (part.replace(":", "\\:") for part in match.groups())
    return f"]:{message}:({values})"


def _add_values(parser: argparse.ArgumentParser, command: Command) -> None:
    """Give each action of `parser` what shtab completes its value from."""
    import shtab

    kinds = {"files": shtab.FILE, "paths": shtab.FILE, "folders": shtab.DIRECTORY}
    options = {option.flag: option for option in command.options if option.metavar is not None}
    arguments = {"RUN": "folders", "KEY": names("keys")}
    for action in parser._actions:
        option = options.get("".join(action.option_strings))
        values: Any
        if option is not None:
            values = option.values if option.values in kinds else _values(option)
        elif action.dest in ("argument", "operand"):
            action.help = str(action.metavar)
            values = "files"
            if action.dest == "argument":
                values = arguments.get(action.help, command.choices)
        else:
            continue
        if isinstance(values, str):
            action.complete = kinds[values]  # type: ignore[attr-defined]
        else:
            action.choices = values or None


def _values(option: Option) -> list[str]:
    """The values of an option by name."""
    values = names(option.values, option.key)
    if option.values != "keys":
        return values
    words = [f"{key}=" for key in values]
    for key in values:
        words += [f"{key}={value}" for value in names(None, key)]
    return words
