"""The Slurm resources that a submission requests: sbatch options, nodes and ranks."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import Diagnostic, invalid
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.submit.options import SBATCH
from gearshift.slurm import sbatch

RANKS = "GEARSHIFT_RANKS_PER_NODE"
_PYTHON = ("GEARSHIFT_PYTHON", "GEARSHIFT_CONTAINER")
"""Either selects the Python of the job."""
_LAUNCH = "GEARSHIFT_LAUNCH"
_COUNT = re.compile(r"[1-9]\d*")
_NODES = re.compile(r"([1-9]\d*)(?:-([1-9]\d*))?")
_GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?([1-9]\d*)")
_GPUS_OF_GRES = re.compile(
    r"--gres[= ](?:\S*,)?(?:gres[:/])?gpu(?::[A-Za-z][\w.-]*)?(?:[:=](\d+))?(?=[,( ]|$)"
)
_RESERVED = (
    "array",
    "chdir",
    "error",
    "open-mode",
    "output",
    "parsable",
    "test-only",
    "wait",
    "wrap",
)
"""Options of sbatch that submit sets itself, or that would change how it works."""
_FORMATS = {
    "--nodes": ("1, 2, … or MIN-MAX", _NODES),
    "--gpus-per-node": ("1, 2, … or TYPE:N", _GPUS),
    "--ranks-per-node": ("1, 2, …", _COUNT),
    "--cpus-per-task": ("1, 2, …", _COUNT),
}


@dataclass(frozen=True)
class Allocation:
    """The resources that a job requests, as far as they are known before it starts."""

    header: Mapping[str, str | None]
    """sbatch options of the job script, without dashes."""
    passthrough: Sequence[str]
    """Further sbatch options, as typed after `--`."""
    nodes: range
    """The numbers of nodes that the job may get."""
    ranks: int
    """Per node."""
    gpus: int
    """Per node."""
    cpus: int | None
    """Per rank; None: not specified."""
    is_torchrun: bool


def read(command_line: CommandLine, diagnostics: list[Diagnostic]) -> Allocation:
    """The allocation that the options and the site file request; errors join `diagnostics`.

    Runs the site file in a subshell.
    """
    environ = _site(diagnostics)
    values = dict(command_line.values)
    for flag, (allowed, pattern) in _FORMATS.items():
        if flag in values and not pattern.fullmatch(values[flag]):
            diagnostics.append(invalid(flag, values.pop(flag), allowed))
    passthrough = command_line.passthrough
    options = {name: values.get(f"--{name}") for name in SBATCH}
    # What ranks and checks follow from must be known here, before sbatch reads it.
    for argument in passthrough:
        name = sbatch.option_of(argument)
        if name in options or name in _RESERVED:
            diagnostics.append(
                Diagnostic(
                    f"submit reads or sets {argument} itself",
                    value=argument,
                    where=f"command line: -- … {argument}",
                    allowed="options of submit before  -- , other sbatch options after it; "
                    "for a job array slurm/sweep.sbatch",
                )
            )
    # Options of the command line override those of the site file.
    header = {"nodes": "1", **sbatch.header(environ)}
    header |= {name: text for name, text in options.items() if text is not None}
    if "array" in header:
        diagnostics.append(
            Diagnostic(
                "submit makes no job arrays: their elements would train one run",
                value=header["array"],
                where="SBATCH_ARRAY",
                allowed="unset; slurm/sweep.sbatch trains a run for each line of a file",
            )
        )

    gpus = _gpus(header, passthrough)
    ranks = gpus or 1
    requested_ranks = values.get("--ranks-per-node") or environ.get(RANKS, "")
    if _COUNT.fullmatch(requested_ranks):
        ranks = int(requested_ranks)
    # sbatch takes the script for one task per node, and each rank needs at least one CPU. With
    # GPUs, the site's defaults decide how many CPUs go with each.
    cpus = None
    if "--cpus-per-task" in values:
        cpus = int(values["--cpus-per-task"])
        header["cpus-per-task"] = str(cpus * ranks)
    elif ranks > 1 and not gpus:
        header.setdefault("cpus-per-task", str(ranks))

    # For job.sh, which starts the ranks.
    exported = []
    if "--ranks-per-node" in values:
        exported.append(f"{RANKS}={values['--ranks-per-node']}")
    is_torchrun = "--torchrun" in command_line.values or environ.get(_LAUNCH) == "torchrun"
    if is_torchrun:
        exported.append(f"{_LAUNCH}=torchrun")
    # Unless the site selects one, the job uses this Python.
    if not any(environ.get(name) for name in (*_PYTHON, sbatch.SITE_VARIABLE)):
        exported.append(f"{_PYTHON[0]}={Path(sys.executable).absolute()}")
    if exported:
        header["export"] = ",".join([header.get("export") or "ALL", *exported])

    nodes = range(1, 2)
    match = _NODES.fullmatch(header["nodes"] or "")
    if match:
        first = int(match[1])
        nodes = range(first, max(first, int(match[2] or first)) + 1)
    return Allocation(header, passthrough, nodes, ranks, gpus, cpus, is_torchrun)


def _site(diagnostics: list[Diagnostic]) -> Mapping[str, str]:
    """The environment after the site file; without the variables of a job that we run in."""
    environ = environment.variables()
    if "SLURM_JOB_ID" in environ:
        environ = sbatch.environment(environ)
    path = sbatch.find_site_file(environ)
    if not path:
        return environ
    try:
        return {sbatch.SITE_VARIABLE: str(path), **sbatch.read_site_file(path, environ)}
    except sbatch.SlurmError as error:
        diagnostics.append(
            Diagnostic(
                f"site file {path} failed: {error}",
                value=str(path),
                where=f"{sbatch.SITE_VARIABLE}={path}",
                allowed="shell settings whose last command succeeds; see slurm/site.example.sh",
            )
        )
        return environ


def _gpus(header: Mapping[str, str | None], passthrough: Sequence[str]) -> int:
    """GPUs per node, if they are requested per node."""
    match = _GPUS.fullmatch(header.get("gpus-per-node") or "")
    if match:
        return int(match[1])
    # `--gres gpu:2` may be two arguments.
    requests = " ".join([f"--gres={header.get('gres') or ''}", *passthrough])
    counts = [int(match[1] or 1) for match in _GPUS_OF_GRES.finditer(requests)]
    return max(counts, default=0)
