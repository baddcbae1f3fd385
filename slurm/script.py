"""Job scripts: a header of sbatch options and one call of a function of slurm/job.sh."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SOURCE = """\
# The functions of all job files. Set GEARSHIFT_SLURM to their folder unless you run sbatch in a
# clone.
# shellcheck source-path=SCRIPTDIR source=job.sh
. {file} || {{
  echo "gearshift: no job.sh; run sbatch in a clone, or set GEARSHIFT_SLURM to slurm/" >&2
  exit 2
}}
"""
_ALWAYS = {
    "output": "%x-%j.out",
    "open-mode": "append",
    "requeue": None,
    # 300 s before the time limit, to the shell only, which forwards it to the ranks. Slurm checks
    # every 30 s and may be 60 s early; with less than 60 s the signal may come too late.
    "signal": "B:USR1@300",
}
_OPPOSITES = {"no-requeue": "requeue", "requeue": "no-requeue", "exclusive": "oversubscribe"}
"""Options that cancel another one."""


@dataclass(frozen=True)
class Shipped:
    """A shipped job file: its resources, and the function of job.sh that it calls."""

    sentence: str = ""
    """Default: that it trains in the mode of the file's name."""
    nodes: str = "1-2"
    time: str = "04:00:00"
    call: str = ""
    """Default: gearshift_job with the mode of the file's name."""
    notes: str = ""


SHIPPED = {
    "default": Shipped(
        "Train in the mode of the arguments, or in the default mode.",
        call="gearshift_job",
    ),
    "lite": Shipped(nodes="1", time="00:30:00"),
    "resource-efficient": Shipped(),
    "fast": Shipped(),
    "ultra-fast": Shipped(time="02:00:00"),
    "benchmark": Shipped(nodes="1", time="01:00:00"),  # one node, so that runs are comparable
    "conservative": Shipped(),
    "staged": Shipped(
        "Staged training: one job per stage, each depends on the one before.",
        call="gearshift_stages",
    ),
    "sweep": Shipped(
        "A job array: the first argument is a file whose line K holds the arguments of element K.",
        nodes="1",
        call="gearshift_sweep",
        notes="# sbatch --array=1-8%2 slurm/sweep.sbatch lines.txt --model abr: lines 1 to 8, two "
        "at a time.\n",
    ),
}
"""The job files NAME.sbatch in this folder, by name."""


def render(
    name: str,
    header: Mapping[str, str | None],
    arguments: Sequence[str],
    slurm_folder: str | None,
    call: str = "",
) -> str:
    """The text of the job file `name`, one of SHIPPED, with `arguments` for the launcher.

    `header` holds sbatch options without dashes, which override those of the shipped file; None
    means an option without a value. `slurm_folder` is the folder of job.sh; None: slurm/ where the
    job is submitted, as in the shipped files. `call` is the function of job.sh with its first
    arguments; empty: that of the shipped file. Raises ValueError for a value with a line break.
    """
    shipped = SHIPPED[name]
    sentence = shipped.sentence or f"Train in mode {name}."

    options: dict[str, str | None] = {
        "job-name": f"gearshift-{name}",
        "nodes": shipped.nodes,
        "time": shipped.time,
        **_ALWAYS,
    }
    if name == "sweep":
        options["output"] = "%x-%A_%a.out"
    # An option that cancels a shipped one takes its place.
    for key, value in header.items():
        options.pop(_OPPOSITES.get(key, ""), None)
        options[key] = value
    header_lines = [_option(key, value) for key, value in options.items()]

    file = '"${GEARSHIFT_SLURM:-$SLURM_SUBMIT_DIR/slurm}/job.sh"'
    if slurm_folder is not None:
        file = shlex.quote(f"{slurm_folder}/job.sh")
    call = call or shipped.call or f"gearshift_job --mode {name}"
    words = [call, *map(shlex.quote, arguments), '"$@"']

    lines = ["#!/bin/bash", f"# {sentence}", *header_lines, "", _SOURCE.format(file=file)]
    return "\n".join([*lines, shipped.notes + " ".join(words), ""])


def _option(key: str, value: str | None) -> str:
    for part in (key, value or ""):
        if "\n" in part or "\r" in part or "\0" in part:
            raise ValueError(f"--{key} {value!r} contains a line break")
    if value is None:
        return f"#SBATCH --{key}"
    # sbatch parses quotes as a shell does.
    return f"#SBATCH --{key}={shlex.quote(value)}"
