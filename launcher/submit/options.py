"""The options of `submit` that sbatch takes, and those that the job passes to its run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

from gearshift.launcher.config.command_line import BY_FLAG, END, split_options
from gearshift.launcher.config.commands import COMMANDS

SBATCH = (
    "nodes",
    "gpus-per-node",
    "cpus-per-task",
    "time",
    "partition",
    "account",
    "qos",
    "constraint",
    "mem",
    "job-name",
)
"""Options that sbatch has under the same name."""
_REPLACED = ("--out", "--dry-run", "--json")
"""Options of a run that the job sets itself."""


def run_arguments(argv: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """The options of a run in the arguments of `submit`, with their values, except `without`."""
    of_submit = list(takewhile(END.__ne__, argv))
    arguments: list[str] = []
    for words, _ in split_options(COMMANDS["submit"], of_submit):
        flag = words[0].partition("=")[0]
        if flag in BY_FLAG and flag not in (*_REPLACED, *without):
            arguments += words
    return arguments
