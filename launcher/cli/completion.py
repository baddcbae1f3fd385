"""The command `completion`: print a script that completes commands, options and names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from gearshift.launcher.base import exit_codes
from gearshift.launcher.cli.help import description
from gearshift.launcher.config.command_line import DEFAULT, HELP, Command, CommandLine, Option
from gearshift.launcher.config.commands import COMMANDS
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

    root = argparse.ArgumentParser(_TOOL, add_help=False)
    commands = root.add_subparsers(title="commands")
    for command in COMMANDS.values():
        name = f"{_TOOL} {command.name}"
        sentence = _escaped(command.sentence)
        parser = commands.add_parser(command.name, help=sentence, prog=name, add_help=False)
        _add_arguments(parser, command)
    _add_arguments(root, COMMANDS[DEFAULT])
    text: str = shtab.complete(root, shell)
    if shell == "zsh":
        text = _ZSH_SPEC.sub(_escape_colons, text)
    return f"{text}\n{_BASH.read_text('utf-8')}" if shell == "bash" else text


def _escape_colons(match: re.Match[str]) -> str:
    """A `]:message:(values)` in which colons are no separators; shtab escapes the help only."""
    message, values = (part.replace(":", "\\:") for part in match.groups())
    return f"]:{message}:({values})"


def _add_arguments(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the arguments of `command` for shtab; they are never parsed."""
    name = command.argument.strip("[].")
    if name:
        values = {"RUN": "folders", "KEY": names("keys")}.get(name, command.choices)
        nargs = "*" if "..." in command.argument else None
        _complete(parser.add_argument("argument", nargs=nargs, metavar=name, help=name), values)
    if command.operands:
        _complete(parser.add_argument("operand", metavar="PATH", help="PATH"), "files")
    for option in (*command.options, HELP):
        flags = ["-h", option.flag] if option is HELP else [option.flag]
        text = _escaped(description(option))
        if option.metavar is None:
            parser.add_argument(*flags, help=text, action="store_true")
        else:
            action = parser.add_argument(*flags, help=text, metavar=option.metavar)
            _complete(action, _values(option))


def _complete(action: argparse.Action, values: str | Sequence[str]) -> None:
    """Let shtab complete an argument from a kind of files, or from a list of values."""
    import shtab

    if isinstance(values, str):
        kinds = {"files": shtab.FILE, "paths": shtab.FILE, "folders": shtab.DIRECTORY}
        action.complete = kinds[values]  # type: ignore[attr-defined]
    else:
        action.choices = values or None


def _values(option: Option) -> str | list[str]:
    """The kind of files that an option takes, or its values by name."""
    if option.values in ("files", "folders", "paths"):
        return option.values
    values = names(option.values, option.key)
    if option.values != "keys":
        return values
    words = [f"{key}=" for key in values]
    for key in values:
        words += [f"{key}={value}" for value in names(None, key)]
    return words


def _escaped(text: str) -> str:
    """`text` for argparse, which formats help with `%`."""
    return text.replace("%", "%%")
