"""The options of `submit`: those of a run, those of sbatch, and how the job passes them on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import takewhile

from gearshift.launcher.config.command_line import (
    BY_FLAG,
    OPTIONS,
    OUTPUT,
    Command,
    Option,
    in_group,
    split_options,
)

CLUSTER = "Slurm resources; further sbatch options, such as --mail-type=END, after --"
_RESOURCES = tuple(
    in_group(
        CLUSTER,
        Option("--nodes N|MIN-MAX", "Nodes of the job. Default: 1."),
        Option("--gpus-per-node [TYPE:]N", "GPUs per node. Default: none."),
        Option("--ranks-per-node N", "Ranks per node. Default: one per GPU, or one."),
        Option("--cpus-per-task N", "CPUs per rank."),
        Option(
            "--time LIMIT", "Time limit: MINUTES, H:MM:SS or D-HH. A checkpoint is saved before it."
        ),
        Option("--partition NAME", "Partition."),
        Option("--account NAME", "Account to charge."),
        Option("--qos NAME", "Quality of service."),
        Option("--constraint LIST", "Features that the nodes must have."),
        Option("--mem SIZE", "Memory per node, such as 64G."),
        Option("--job-name NAME", "Job name. Default: gearshift-<mode>."),
        Option("--torchrun", "Start the ranks of each node with torchrun. Default: srun."),
    )
)
INSTEAD = {"--nproc": "--ranks-per-node", "--gpus": "--gpus-per-node"}
"""Of `run` and `plan`, which know one machine or its GPUs."""
_NOT_OF_SBATCH = ("--ranks-per-node", "--torchrun")
SBATCH = [option for option in _RESOURCES if option.flag not in _NOT_OF_SBATCH]
"""Options that sbatch has under the same name."""
_NOT_OF_SUBMIT = ("--nproc", "--max-restarts", "--dry-run")
"""Slurm decides the number of processes and restarts them; a dry run is one of submit."""
_OF_A_RUN = [option for option in OPTIONS if option.flag not in _NOT_OF_SUBMIT]
SUBMIT = (
    *(option for option in _OF_A_RUN if option.group != OUTPUT),
    *_RESOURCES,
    *(option for option in _OF_A_RUN if option.group == OUTPUT),
    replace(
        BY_FLAG["--dry-run"],
        sentence="Show the job script and the sbatch command; write nothing. Needs no Slurm.",
    ),
)
_COMMAND = Command("submit", "", "", SUBMIT)
_REPLACED = ("--out", "--dry-run", "--json")
"""Options of a run that the job sets itself."""


def run_arguments(argv: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """The options of a run in the arguments of `submit`, with their values, except `without`."""
    of_submit = list(takewhile("--".__ne__, argv))
    arguments: list[str] = []
    for words, _ in split_options(_COMMAND, of_submit):
        flag = words[0].partition("=")[0]
        if flag in BY_FLAG and flag not in (*_REPLACED, *without):
            arguments += words
    return arguments
