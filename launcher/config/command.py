"""The record of a command, and its arguments one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from launcher.base.diagnostics import PROGRAM
from launcher.config.options import Option

DEFAULT = "run"
"""The command of a command line that names none."""
_NUMBER = re.compile(r"-[0-9.]")
EMPTY = re.compile(r"(--[^=]*=)?")
"""An argument without a value that it needs."""


@dataclass(frozen=True)
class Command:
    """One command of the command line; its module is imported only when it runs."""

    name: str
    sentence: str
    module: str
    """Has `main(command_line) -> int`, the exit code."""
    options: tuple[Option, ...]
    argument: str | None = None
    """The positional argument, as help shows it."""
    choices: tuple[str, ...] = ()
    """The valid values of the argument; empty: any value."""
    allowed: str = ""
    """Describes the valid values if `choices` is empty."""
    requires_argument: bool = True
    repeats_argument: bool = False
    """Whether there may be several."""
    operand: str | None = None
    """The second positional argument, as help shows it; required."""
    optional_operand: Mapping[str, str] = field(default_factory=dict)
    """The `choices` that need no operand, and the one they take, as help shows it."""
    adds_errors: bool = False
    """Whether `main` finds further errors, and raises those of the command line with them."""
    passthrough: str | None = None
    """The program that receives the options after `--`; None: `--` is not accepted."""

    @property
    def call(self) -> str:
        """The command as a user types it."""
        return PROGRAM if self.name == DEFAULT else f"{PROGRAM} {self.name}"

    def requires_operand(self, argument: str | None) -> bool:
        """Whether an operand has to follow `argument`."""
        return self.operand is not None and argument not in self.optional_operand


def split_options(command: Command, argv: Sequence[str]) -> Iterator[tuple[int, list[str], bool]]:
    """Each argument with its position, and whether the command takes it.

    With an option comes its value, also a negative number, which argparse takes for an option;
    with an unknown one what is most likely its value.
    """
    takes_value = {option.flag: option.metavar is not None for option in command.options}
    index = 0
    while index < len(argv):
        argument, following = argv[index], "".join(argv[index + 1 : index + 2])
        is_option = argument.startswith("-") and argument != "-"
        is_known = not is_option or argument.partition("=")[0] in takes_value
        has_value = bool(_NUMBER.match(following))
        if index + 1 < len(argv) and takes_value.get(argument, not is_known):
            has_value = has_value or not following.startswith("-")
        words = (
            [argument, following] if is_option and "=" not in argument and has_value else [argument]
        )
        yield index + 1, words, is_known
        index += len(words)
