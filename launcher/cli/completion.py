"""The command `completion`: print a script for a shell, or the words that complete a line."""

from __future__ import annotations

import re
from pathlib import Path

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.config.command_line import DEFAULT, HELP, CommandLine, Option
from gearshift.launcher.config.commands import ALIASES, COMMANDS
from gearshift.launcher.config.input_errors import names


def main(command_line: CommandLine) -> int:
    """Print the script of one shell, or the words for the line that it has; the exit code."""
    shell = command_line.argument
    if shell == "words":
        print("\n".join(words(environment.variables().get("COMP_LINE", " "))))
    else:
        print(Path(__file__).with_suffix(f".{shell}").read_text("utf-8"), end="")
    return exit_codes.DONE


def words(line: str) -> list[str]:
    """What may stand in the place of the last word of a command line; empty: a file, or any."""
    _, *before, typed = re.split(r"\s+", line)
    name = ""
    option = None
    if before:
        name = ALIASES.get(before[0], before[0])
    command = COMMANDS.get(name, COMMANDS[DEFAULT])
    options = {option.flag: option for option in (*command.options, HELP)}
    if before:
        option = options.get(before[-1])

    flag, equals, _ = typed.partition("=")
    if equals and flag in options:
        candidates = [f"{flag}={value}" for value in _values(options[flag])]
    elif option is not None and option.metavar is not None:
        candidates = _values(option)
    elif typed.startswith("-"):
        candidates = [*options]
    elif not before:
        candidates = [*COMMANDS]
    elif command.name == "explain":
        candidates = names("keys")
    else:
        candidates = [*command.choices]
    return [word for word in candidates if word.startswith(typed)]


def _values(option: Option) -> list[str]:
    """The values of an option by name."""
    values = names(option.values, option.key)
    if option.values != "keys":
        return values
    settings = [f"{key}=" for key in values]
    for key in values:
        settings += [f"{key}={value}" for value in names(None, key)]
    return settings
