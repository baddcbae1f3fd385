"""The Slurm resources that a submission requests: sbatch options, nodes and ranks."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import Diagnostic
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.submit.options import SBATCH
from gearshift.slurm import sbatch

FOLDER = (environment.ROOT / "gearshift" / "slurm").resolve()
"""The folder of job.sh and of the site file."""
RANKS = "GEARSHIFT_RANKS_PER_NODE"
_PYTHON = ("GEARSHIFT_PYTHON", "GEARSHIFT_CONTAINER")
"""Either selects the Python of the job."""
_LAUNCH = "GEARSHIFT_LAUNCH"
_NODES = re.compile(r"([1-9]\d*)(?:-([1-9]\d*))?")
_GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?([1-9]\d*)")
_GPUS_OF_GRES = re.compile(r"(?:^|,)(?:gres[:/])?gpu(?::[A-Za-z][\w.-]*)?(?:[:=](\d+))?(?=,|\(|$)")
_LINE = re.compile(r".*\S.*")
_RESERVED = ("chdir", "error", "open-mode", "output", "parsable", "test-only", "wait", "wrap")
"""Options of sbatch that submit sets itself, or that would change how it works."""
_FORMATS = {
    "--nodes": ("1, 2, … or MIN-MAX", _NODES),
    "--gpus-per-node": ("1, 2, … or TYPE:N", _GPUS),
    "--ranks-per-node": ("1, 2, …", re.compile(r"[1-9]\d*")),
    "--cpus-per-task": ("1, 2, …", re.compile(r"[1-9]\d*")),
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
    array: str | None = None


def read(command_line: CommandLine, diagnostics: list[Diagnostic]) -> Allocation:
    """The allocation that the options and the site file request; errors join `diagnostics`.

    Runs the site file in a subshell.
    """
    environ = _site(diagnostics)
    values: dict[str, str] = {}
    passthrough = command_line.passthrough
    for flag, text in command_line.values.items():
        allowed, pattern = _FORMATS.get(flag, ("text on one line", _LINE))
        match = pattern.fullmatch(text)
        if match and (pattern != _NODES or int(match[1]) <= int(match[2] or match[1])):
            values[flag] = text
            continue
        message = f"invalid {flag} {text!r}"
        where = f"command line: {flag} {text}"
        diagnostics.append(Diagnostic(message, key=flag, value=text, where=where, allowed=allowed))
    ours = {option.flag[2:]: values.get(option.flag) for option in SBATCH}
    for argument in passthrough:
        where = f"command line: -- … {argument}"
        if (name := sbatch.option_of(argument)) in ours:
            message = f"{argument} must precede -- : submit reads it"
            allowed = f"--{name} before  -- "
        elif name in _RESERVED:
            message = f"submit sets {argument} itself"
            allowed = "other sbatch options"
        else:
            continue
        diagnostics.append(Diagnostic(message, value=argument, where=where, allowed=allowed))
    header = {
        "nodes": "1",
        **sbatch.header(environ),
        **{k: text for k, text in ours.items() if text},
    }
    array = header.pop("array", None)
    gpus = _gpus(header, passthrough)
    cpus = values.get("--cpus-per-task")
    ranks = values.get("--ranks-per-node") or environ.get(RANKS, "")
    count = int(ranks) if re.fullmatch(r"[1-9]\d*", ranks) else gpus or 1
    # sbatch takes the script for one task per node, and each rank needs at least one CPU. With
    # GPUs, the site's defaults decide how many CPUs go with each.
    if cpus is not None or (count > 1 and not gpus and "cpus-per-task" not in header):
        header["cpus-per-task"] = str(int(cpus or 1) * count)
    is_torchrun = "--torchrun" in command_line.flags or environ.get(_LAUNCH) == "torchrun"
    variables = {
        RANKS: values.get("--ranks-per-node"),
        _LAUNCH: "torchrun" if is_torchrun else None,
    }
    # Unless the site selects one, the job uses this Python.
    if not any(environ.get(name) for name in (*_PYTHON, sbatch.SITE_VARIABLE)):
        variables[_PYTHON[0]] = str(Path(sys.executable).absolute())
    if exported := [f"{name}={value}" for name, value in variables.items() if value]:
        header["export"] = ",".join([header.get("export") or "ALL", *exported])
    nodes = _NODES.fullmatch(header["nodes"] or "")
    first, last = (int(nodes[1]), int(nodes[2] or nodes[1])) if nodes else (1, 1)
    return Allocation(
        header=header,
        passthrough=passthrough,
        nodes=range(first, max(first, last) + 1),
        ranks=count,
        gpus=gpus,
        cpus=int(cpus) if cpus else None,
        is_torchrun=is_torchrun,
        array=array,
    )


def _site(diagnostics: list[Diagnostic]) -> Mapping[str, str]:
    """The environment after the site file; without the variables of a job that we run in."""
    environ = environment.variables()
    outside = sbatch.environment(environ) if "SLURM_JOB_ID" in environ else dict(environ)
    path = sbatch.find_site_file(environ, FOLDER)
    if path is None:
        return outside
    try:
        return {sbatch.SITE_VARIABLE: str(path), **sbatch.read_site_file(path, outside)}
    except sbatch.SiteError as error:
        where = f"{sbatch.SITE_VARIABLE}={path}" if sbatch.SITE_VARIABLE in environ else str(path)
        allowed = "shell settings whose last command succeeds; see slurm/site.example.sh"
        message = f"site file {path} failed: {error}"
        diagnostics.append(Diagnostic(message, value=str(path), where=where, allowed=allowed))
        return outside


def _gpus(header: Mapping[str, str | None], passthrough: Sequence[str]) -> int:
    """GPUs per node, if they are requested per node."""
    if match := _GPUS.fullmatch(header.get("gpus-per-node") or ""):
        return int(match[1])
    # `--gres gpu:2` may be two arguments.
    joined = [*passthrough, *(f"{name}={value}" for name, value in pairwise(passthrough))]
    pairs = [o.partition("=") for o in [f"--gres={header.get('gres') or ''}", *joined]]
    matches = [_GPUS_OF_GRES.search(value) for name, _, value in pairs if name == "--gres"]
    return max((int(match[1] or 1) for match in matches if match), default=0)
