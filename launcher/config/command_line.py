"""The command line: commands and options, its parsed arguments, and their errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gearshift.launcher.base.diagnostics import PROGRAM, Diagnostic
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.settings_file import read_rows

Values = Literal[
    "models", "modes", "engines", "stages", "keys", "parts", "trackers", "files", "folders", "paths"
]

PATH_VALUES = ("models", "files", "folders", "paths")
"""The kinds that may be paths."""


@dataclass(frozen=True)
class Option:
    """One option. The help of an option that sets a setting is the setting's description."""

    form: str
    """As in help, `--epochs N`; one without a value alone, `--debug`."""
    sentence: str = ""
    """Help; empty: the description of the setting."""
    key: str | None = None
    """The setting that it sets."""
    repeats: bool = False
    values: Values | None = None
    """The kind of values for completion."""
    group: str = "output"
    mode: str | None = None
    """The mode that it selects."""

    @property
    def flag(self) -> str:
        """Its name: `--epochs`."""
        return self.form.partition(" ")[0]

    @property
    def metavar(self) -> str | None:
        """Its value in help; None: it takes none."""
        return self.form.partition(" ")[2] or None


HELP = Option("--help", "Print this help and exit.")
VERSION = Option("--version", "Print the versions of the libraries and exit.")
OPTIONS = tuple(Option(**row) for row in read_rows("options.yaml"))
"""The options of a run."""
BY_FLAG = {option.flag: option for option in OPTIONS}
INPUT = "--input"
"""What `predict` reads."""
DEFAULT = "run"
"""The command of a command line that names none."""
END = "--"
"""After it come options of another program."""
_NUMBER = re.compile(r"-[0-9.]")
_ORDER = 999
"""Sorts these errors after those of files and before those of single settings."""


@dataclass(frozen=True)
class Command:
    """One command of the command line; its module is imported only when it runs."""

    name: str
    sentence: str
    module: str
    """Has `main(command_line) -> int`, the exit code."""
    options: tuple[Option, ...]
    argument: str = ""
    """The positional argument as help shows it: `RUN`, `[KEY]`, `RUN...`; empty: none."""
    choices: Sequence[str] = ()
    """The valid values of the argument; empty: any value."""
    allowed: str = ""
    """Describes the valid values if `choices` is empty."""
    operands: Mapping[str, str] = field(default_factory=dict)
    """The second positional argument after some of the `choices`, as help shows it: `[DIR]`."""
    adds_errors: bool = False
    """Whether `main` finds further errors, and raises those of the command line with them."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Its own option for one of another command or program."""
    reader: str | None = None
    """The command that takes the runs that people type after this one, which takes no argument."""
    passthrough: str | None = None
    """The program that receives the options after `--`; None: `--` is not accepted."""

    @property
    def call(self) -> str:
        """The command as a user types it."""
        return PROGRAM if self.name == DEFAULT else f"{PROGRAM} {self.name}"

    def most_positionals(self, argument: str) -> int:
        """How many positional arguments it takes, of which `argument` is the first."""
        if "..." in self.argument:
            return sys.maxsize
        return bool(self.argument) + (argument in self.operands)


def split_options(command: Command, argv: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Each argument, and whether the command takes it.

    With an option comes its value, also a negative number; with an unknown one what is most likely
    its value.
    """
    takes_value = {option.flag: option.metavar is not None for option in command.options}
    index = 0
    while index < len(argv):
        argument = argv[index]
        is_option = argument.startswith("-") and argument != "-"
        is_known = not is_option or argument.partition("=")[0] in takes_value
        words = [argument]
        if is_option and "=" not in argument and index + 1 < len(argv):
            following = argv[index + 1]
            is_value = takes_value.get(argument, not is_known) and not following.startswith("-")
            if is_value or _NUMBER.match(following):
                words.append(following)
        yield words, is_known
        index += len(words)


RUN = Command(
    DEFAULT,
    "train a model; the default command, also: train",
    "gearshift.launcher.commands.run",
    (*OPTIONS, VERSION),
    adds_errors=True,
)


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    command: Command
    argument: str = ""
    """The RUN of resume, the KEY of explain, the WHAT of list; empty: none was typed."""
    args: CliArgs = field(default_factory=CliArgs)
    values: Mapping[str, str] = field(default_factory=dict)
    """The value that counts of each option that was given; `true` for one without a value."""
    diagnostics: Sequence[Diagnostic] = ()
    is_misread: bool = False
    """Whether further checks would make no sense: the errors come alone."""
    more: Sequence[str] = ()
    """The other RUNs of report and watch; the operand of data and list."""
    passthrough: Sequence[str] = ()
    """Options after `--`, for another program."""
    argv: Sequence[str] = ()
    """All arguments after the command's name, as typed."""

    @property
    def as_json(self) -> bool:
        """Whether the output is for programs."""
        return "--json" in self.values

    @property
    def out(self) -> Path | None:
        """The value of --out."""
        text = self.values.get("--out")
        return Path(text) if text else None

    @property
    def operand(self) -> str:
        """The PATH of data check, the hf:ID of data fetch, the DIR of list runs; empty: none."""
        return next(iter(self.more), "")


def command_line_error(message: str, where: str, **parts: Any) -> Diagnostic:
    """The error of `where`, a part of the command line; `parts` are further fields."""
    return Diagnostic(message, where=f"command line: {where}", order=(_ORDER, 0), **parts)
