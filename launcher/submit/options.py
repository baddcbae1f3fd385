"""The options of submit: those of a run, and what is asked of Slurm."""

from __future__ import annotations

from dataclasses import replace

from launcher.cli.options import BY_FLAG, OPTIONS, SHOWN, Option

CLUSTER = "what is asked of Slurm; more, such as --mail-type=END, behind --"
QUEUE = "what is queued"
_OF_ONE_MACHINE = ("--nproc", "--max-restarts")
"""Slurm decides the processes, and starts what has died."""
_DRY_RUN = BY_FLAG["--dry-run"]
NODES = Option(
    "--nodes",
    CLUSTER,
    "N|MIN-MAX",
    sentence="Nodes of the job, or as many as it can get. Default: 1.",
)
GPUS = Option("--gpus-per-node", CLUSTER, "[TYPE:]N", sentence="GPUs of each node. Default: none.")
RANKS = Option(
    "--ranks-per-node",
    CLUSTER,
    "N",
    sentence="Processes of each node. Default: one a GPU, or one.",
)
CPUS = Option("--cpus-per-task", CLUSTER, "N", sentence="Processors of each process.")
TIME = Option(
    "--time", CLUSTER, "LIMIT", sentence="MINUTES, H:MM:SS or D-HH; before it ends, all is saved."
)
ARRAY = Option(
    "--array",
    QUEUE,
    "RANGE",
    sentence="A run for each number, such as 1-8%2 for two at a time; with --sweep, of its lines.",
)
SWEEP = Option(
    "--sweep",
    QUEUE,
    "FILE",
    sentence="A run for each line of the file, which holds further options of that run.",
    values="files",
)
NAMED = (
    NODES,
    GPUS,
    CPUS,
    TIME,
    Option("--partition", CLUSTER, "NAME", sentence="Where to queue it."),
    Option("--account", CLUSTER, "NAME", sentence="Who pays."),
    Option("--qos", CLUSTER, "NAME", sentence="The quality of service."),
    Option("--constraint", CLUSTER, "LIST", sentence="Features that the nodes must have."),
    Option("--mem", CLUSTER, "SIZE", sentence="Main memory of each node, such as 64G."),
    Option("--job-name", CLUSTER, "NAME", sentence="Default: gearshift-<mode>."),
    ARRAY,
)
"""Those that sbatch knows by the same name."""
TORCHRUN = Option(
    "--torchrun",
    CLUSTER,
    sentence="Start the processes of each node by torchrun; without it, srun starts each.",
)
WAIT = Option(
    "--wait",
    QUEUE,
    sentence="Stay, and show how it goes until it ends; the exit code is that of the run.",
)
SUBMIT = (
    *(one for one in OPTIONS if one.flag not in _OF_ONE_MACHINE and one.group != SHOWN),
    *NAMED[:2],
    RANKS,
    *NAMED[2:-1],
    TORCHRUN,
    ARRAY,
    SWEEP,
    WAIT,
    *(one for one in OPTIONS if one.group == SHOWN and one != _DRY_RUN),
    replace(
        _DRY_RUN,
        sentence="Show the job script and what would be typed; write nothing, and need no Slurm.",
    ),
)
