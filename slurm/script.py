"""The text of a job script: a header for sbatch, and one call of what slurm/job.sh holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SHELL = "#!/bin/bash"
_BESIDE_THE_SUBMITTER = "${GEARSHIFT_SLURM:-$SLURM_SUBMIT_DIR/slurm}"
_SOURCE = """\
# What all job files share. GEARSHIFT_SLURM names its folder where it is not that of a clone in
# which sbatch is typed.
# shellcheck source-path=SCRIPTDIR source=job.sh
. {file} || {{
  echo "gearshift: no job.sh; type sbatch in the clone, or let GEARSHIFT_SLURM name slurm/" >&2
  exit 2
}}
"""
_ALWAYS = {
    "output": "%x-%j.out",
    "open-mode": "append",
    "requeue": None,
    # 300 s before the limit, to the shell only: it hands the signal on to the ranks. Slurm looks
    # every 30 s and may be 60 s early; below 60 s the signal may come too late.
    "signal": "B:USR1@300",
}
_ANSWERS = {"no-requeue": "requeue", "requeue": "no-requeue", "exclusive": "oversubscribe"}
"""Options that take back another one."""


@dataclass(frozen=True)
class Shipped:
    """A job file: what it is for, what it asks of Slurm, and which function of job.sh it calls."""

    sentence: str
    nodes: str
    time: str
    call: str
    notes: str = ""


SHIPPED = {
    "default": Shipped(
        "Trains, in the mode that the words name, or in the family's own.",
        "1-2",
        "04:00:00",
        'gearshift_job "$@"',
    ),
    "lite": Shipped(
        "Sees within minutes that all works: a smaller model on a quarter of the data.",
        "1",
        "00:30:00",
        'gearshift_job --mode lite "$@"',
    ),
    "resource-efficient": Shipped(
        "The same training in half the memory, beside other programs.",
        "1-2",
        "04:00:00",
        'gearshift_job --mode resource-efficient "$@"',
    ),
    "fast": Shipped(
        "Larger batches and fewer epochs, to finish three times sooner.",
        "1-2",
        "04:00:00",
        'gearshift_job --mode fast "$@"',
    ),
    "ultra-fast": Shipped(
        "Fast, pushed further, at some cost in quality.",
        "1-2",
        "02:00:00",
        'gearshift_job --mode ultra-fast "$@"',
    ),
    "benchmark": Shipped(
        "One epoch, to measure batches a second; on one node, so that two runs compare.",
        "1",
        "01:00:00",
        'gearshift_job --mode benchmark "$@"',
    ),
    "conservative": Shipped(
        "The same model and batch in fewer, larger micro-batches, for a third of the epochs.",
        "1-2",
        "04:00:00",
        'gearshift_job --mode conservative "$@"',
    ),
    "staged": Shipped(
        "One part of the model after the other, each in a job that waits for the one before.",
        "1-2",
        "04:00:00",
        'gearshift_stages "$@"',
        "# The stages in their order, of the family that the words name (python -m launcher list "
        "models).\nexport GEARSHIFT_STAGES=${GEARSHIFT_STAGES:-encoder text}\n",
    ),
    "sweep": Shipped(
        "An array of runs: its first word is a file, whose line K holds the words of element K.",
        "1",
        "04:00:00",
        'gearshift_sweep "$@"',
        "# sbatch --array=1-8%2 slurm/sweep.sbatch words.txt --model abr: lines 1 to 8, two at a "
        "time.\n",
    ),
}
"""The job files that lie beside this one, NAME.sbatch, by name."""


def render(
    name: str,
    header: Mapping[str, str | None],
    words: Sequence[str],
    slurm_folder: str | None,
) -> str:
    """The job file `name`, one of SHIPPED, with `words` for the launcher.

    `header` are options of sbatch without their dashes, over those of the shipped file; None as
    value: the option takes none. `slurm_folder` holds job.sh; None: it is looked for where the
    job was submitted, as in the shipped files, which are what no header and no words give.
    Raises ValueError for what cannot stand in a header.
    """
    shipped = SHIPPED[name]
    options = _header(name, shipped, header)
    lines = [_SHELL, f"# {shipped.sentence}"]
    lines += [_option(key, value) for key, value in options.items()]
    file = f'"{_BESIDE_THE_SUBMITTER}/job.sh"'
    if slurm_folder is not None:
        file = shlex.quote(f"{slurm_folder}/job.sh")
    call = shipped.call
    if words:
        call = call.replace('"$@"', f'{shlex.join(words)} "$@"')
    return "\n".join([*lines, "", _SOURCE.format(file=file), shipped.notes + call, ""])


def _header(name: str, shipped: Shipped, given: Mapping[str, str | None]) -> dict[str, str | None]:
    options: dict[str, str | None] = {
        "job-name": f"gearshift-{name}",
        "nodes": shipped.nodes,
        "time": shipped.time,
        **_ALWAYS,
    }
    if name == "sweep" or "array" in given:
        options["output"] = "%x-%A_%a.out"
    for key, value in given.items():
        options.pop(_ANSWERS.get(key, ""), None)
        options[key] = value
    return options


def _option(key: str, value: str | None) -> str:
    for part in (key, value or ""):
        if "\n" in part or "\r" in part or "\0" in part:
            raise ValueError(f"--{key} {value!r} does not fit into one line of a job script")
    if value is None:
        return f"#SBATCH --{key}"
    # sbatch reads quotes as a shell does; what is plain stays as a person would write it.
    return f"#SBATCH --{key}={shlex.quote(value) if _needs_quotes(value) else value}"


def _needs_quotes(value: str) -> bool:
    return any(one.isspace() or one in "\"'\\#" for one in value)
