"""The options of `submit`: those of a run, those of sbatch, and how the job passes them on."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from launcher.config.options import BY_FLAG, OPTIONS, OUTPUT, Option
from launcher.config.schema import PRETRAINED
from models.common.hub import HUB

CLUSTER = "Slurm resources; further sbatch options, such as --mail-type=END, after --"
JOBS = "jobs"
_SINGLE_MACHINE = ("--nproc", "--max-restarts")
"""Slurm decides the number of processes and restarts them."""
_DRY_RUN = BY_FLAG["--dry-run"]
NODES = Option("--nodes", CLUSTER, "N|MIN-MAX", sentence="Nodes of the job. Default: 1.")
GPUS = Option("--gpus-per-node", CLUSTER, "[TYPE:]N", sentence="GPUs per node. Default: none.")
RANKS = Option(
    "--ranks-per-node", CLUSTER, "N", sentence="Ranks per node. Default: one per GPU, or one."
)
CPUS = Option("--cpus-per-task", CLUSTER, "N", sentence="CPUs per rank.")
TIME = Option(
    "--time",
    CLUSTER,
    "LIMIT",
    sentence="Time limit: MINUTES, H:MM:SS or D-HH. A checkpoint is saved before it.",
)
ARRAY = Option(
    "--array",
    JOBS,
    "RANGE",
    sentence="Submit one run per index, such as 1-8%2 (two at a time); with --sweep, its lines.",
)
SWEEP = Option(
    "--sweep",
    JOBS,
    "FILE",
    sentence="Submit one run per line of the file; the line holds further options of the run.",
    values="files",
)
SBATCH = (
    NODES,
    GPUS,
    CPUS,
    TIME,
    Option("--partition", CLUSTER, "NAME", sentence="Partition."),
    Option("--account", CLUSTER, "NAME", sentence="Account to charge."),
    Option("--qos", CLUSTER, "NAME", sentence="Quality of service."),
    Option("--constraint", CLUSTER, "LIST", sentence="Features that the nodes must have."),
    Option("--mem", CLUSTER, "SIZE", sentence="Memory per node, such as 64G."),
    Option("--job-name", CLUSTER, "NAME", sentence="Job name. Default: gearshift-<mode>."),
    ARRAY,
)
"""Options that sbatch has under the same name."""
TORCHRUN = Option(
    "--torchrun", CLUSTER, sentence="Start the ranks of each node with torchrun. Default: srun."
)
SUBMIT = (
    *(o for o in OPTIONS if o.flag not in _SINGLE_MACHINE and o.group != OUTPUT),
    *SBATCH[:2],
    RANKS,
    *SBATCH[2:-1],
    TORCHRUN,
    ARRAY,
    SWEEP,
    *(option for option in OPTIONS if option.group == OUTPUT and option != _DRY_RUN),
    replace(
        _DRY_RUN,
        sentence="Show the job script and the sbatch command; write nothing. Needs no Slurm.",
    ),
)
_KNOWN = {option.flag: option for option in SUBMIT}
_REPLACED = ("--out", "--dry-run", "--json")
"""Options of a run that the job sets itself."""
_OF_HUB = re.compile(f"((?:--set=)?{PRETRAINED}=)({HUB}.+)")
MODE_FLAGS = ("--mode", *(flag for flag, option in BY_FLAG.items() if option.mode is not None))


def run_arguments(argv: Sequence[str], without: Collection[str] = ()) -> list[str]:
    """The options of a run in the arguments of `submit`, with their values, except `without`."""
    arguments_of_run: list[str] = []
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":
            break
        flag = argument.partition("=")[0]
        option = _KNOWN.get(flag)
        if option is None:
            continue
        taken = [argument]
        if option.metavar is not None and "=" not in argument and arguments:
            taken.append(arguments.pop(0))
        if flag in BY_FLAG and flag not in (*_REPLACED, *without):
            arguments_of_run += taken
    return [_OF_HUB.sub(_pinned, argument) for argument in arguments_of_run]


def _pinned(match: re.Match[str]) -> str:
    """A model of the hub by its commit: a requeued job loads the same one."""
    from launcher.config import hub  # for the runs that name one

    return match[1] + hub.fetch(match[2])
