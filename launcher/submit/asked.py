"""What a person and their site ask of Slurm: the header of a job, and the world it will have."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from launcher.base import environment as package_guard
from launcher.base.diagnostics import Diagnostic
from launcher.cli.parser import Request
from launcher.config.machine import Machine
from launcher.submit import options
from slurm import sbatch, site
from slurm.environment import Place
from slurm.sbatch_options import option_of

FOLDER = package_guard.ROOT / "slurm"
"""Where job.sh lies, and the file of this site."""
RANKS = "GEARSHIFT_RANKS_PER_NODE"
_PYTHON = ("GEARSHIFT_PYTHON", "GEARSHIFT_CONTAINER")
"""Either says what Python the job runs."""
_LAUNCH = "GEARSHIFT_LAUNCH"
_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
_NODES = re.compile(r"([1-9]\d*)(?:-([1-9]\d*))?")
_GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?([1-9]\d*)")
_GPUS_OF_GRES = re.compile(r"(?:^|,)(?:gres[:/])?gpu(?::[A-Za-z][\w.-]*)?(?:[:=](\d+))?(?=,|\(|$)")
_OURS = ("chdir", "error", "open-mode", "output", "parsable", "test-only", "wait", "wrap")
"""Options of sbatch that submit gives by itself, or that would make another thing of it."""
_LEGAL = {
    options.NODES.flag: ("1, 2, … or MIN-MAX", _NODES),
    options.GPUS.flag: ("1, 2, … or TYPE:N", _GPUS),
    options.RANKS.flag: ("1, 2, …", re.compile(r"[1-9]\d*")),
    options.CPUS.flag: ("1, 2, …", re.compile(r"[1-9]\d*")),
    options.TIME.flag: ("MINUTES, MM:SS, H:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS", _TIME),
    options.ARRAY.flag: ("such as 1-8, 0-30:10, 1,4,7 or 1-8%2", re.compile(r"[\d,:%-]*\d")),
}


@dataclass(frozen=True)
class Asked:
    """What the job will have, as far as it can be known before."""

    header: Mapping[str, str | None]
    """Options of sbatch for the job script, without their dashes."""
    behind: Sequence[str]
    """Further words for sbatch, as they were typed behind `--`."""
    nodes: range
    """How many nodes it may come to."""
    ranks: int
    """Processes of a node."""
    gpus: int
    """Of a node."""
    cpus: int | None
    """Processors of a rank; None: nobody says."""
    is_torchrun: bool
    array: str | None = None

    def machine(self, here: Machine) -> Machine:
        """A node of the job, taken for the rest to be like `here`."""
        cores = here.cores if self.cpus is None else self.cpus * self.ranks
        if not self.gpus:
            return replace(here, cores=cores)
        return replace(here, cores=cores, gpus=self.gpus, device="cuda")

    def places(self) -> list[Place | None]:
        """The place of rank 0 in each world that it may come to; None: a process for itself."""
        return [self._place(nodes * self.ranks) for nodes in self.nodes]

    def _place(self, size: int) -> Place | None:
        if size == 1 and not self.is_torchrun:
            return None
        return Place(
            rank=0,
            world_size=size,
            local_rank=0,
            local_size=self.ranks,
            node=0,
            master_addr="",
            master_port=0,
            source="torchrun" if self.is_torchrun else "srun",
        )


def read(request: Request, diagnostics: list[Diagnostic]) -> Asked:
    """What is asked, by the options and the site's file; what is wrong with it joins `faults`.

    Runs the site's file in a shell of its own.
    """
    told = _site(os.environ, diagnostics)
    values = {
        flag: text for flag, text in request.values.items() if _is_legal(flag, text, diagnostics)
    }
    diagnostics += _misplaced(request.behind)
    header = sbatch.header(told)
    header.update({o.flag[2:]: values[o.flag] for o in options.NAMED if o.flag in values})
    header.setdefault("nodes", "1")
    array = header.pop("array", None)
    gpus = _gpus(header, request.behind)
    cpus = values.get(options.CPUS.flag)
    ranks = values.get(options.RANKS.flag) or told.get(RANKS, "")
    count = int(ranks) if re.fullmatch(r"[1-9]\d*", ranks) else gpus or 1
    # To sbatch the script is one task of a node; and a rank has at least a processor. Where there
    # are GPUs the site knows better how many go with each.
    if cpus is not None or (count > 1 and not gpus and "cpus-per-task" not in header):
        header["cpus-per-task"] = str(int(cpus or 1) * count)
    is_torchrun = options.TORCHRUN.flag in request.flags or told.get(_LAUNCH) == "torchrun"
    exported = _exported(values, is_torchrun, told)
    if exported:
        header["export"] = ",".join([header.get("export") or "ALL", *exported])
    nodes = _NODES.fullmatch(header["nodes"] or "")
    least, most = (int(nodes[1]), int(nodes[2] or nodes[1])) if nodes else (1, 1)
    return Asked(
        header=header,
        behind=request.behind,
        nodes=range(least, max(least, most) + 1),
        ranks=count,
        gpus=gpus,
        cpus=int(cpus) if cpus else None,
        is_torchrun=is_torchrun,
        array=array,
    )


def _site(environ: Mapping[str, str], diagnostics: list[Diagnostic]) -> Mapping[str, str]:
    """The environment with what the site's file sets; of a job that we are in, nothing counts."""
    outside = dict(environ) if "SLURM_JOB_ID" not in environ else sbatch.environment(environ)
    path = site.find(environ, FOLDER)
    if path is None:
        return outside
    try:
        return {site.VARIABLE: str(path), **site.read(path, outside)}
    except site.SiteError as error:
        what, _, said = str(error).partition("\n")
        diagnostics.append(
            Diagnostic(
                f"the site file {path} cannot be used: {what}"
                + "".join(f"\n{said}" if said else ""),
                value=str(path),
                where=f"{site.VARIABLE}={path}" if site.VARIABLE in environ else str(path),
                allowed="shell settings whose last command succeeds; see slurm/site.example.sh",
            )
        )
        return outside


def _is_legal(flag: str, text: str, diagnostics: list[Diagnostic]) -> bool:
    allowed = _LEGAL.get(flag)
    if allowed is None and text.strip() and "\n" not in text:
        return True
    if allowed is not None and allowed[1].fullmatch(text) and not _is_backwards(flag, text):
        return True
    diagnostics.append(
        Diagnostic(
            f"{flag} {text!r} is not legal",
            key=flag,
            value=text,
            where=f"{flag} {text}",
            allowed=allowed[0] if allowed else "a text in one line",
        )
    )
    return False


def _is_backwards(flag: str, text: str) -> bool:
    """Whether it is a range of nodes whose end lies before its begin."""
    match = _NODES.fullmatch(text) if flag == options.NODES.flag else None
    return bool(match and match[2] and int(match[2]) < int(match[1]))


def _misplaced(behind: Sequence[str]) -> list[Diagnostic]:
    """Words for sbatch that are ours to give."""
    ours = {option.flag[2:] for option in options.NAMED}
    diagnostics = []
    for word in behind:
        name = option_of(word)
        if name in ours:
            allowed, fix = "in front of  -- ", f"--{name}  in front of  -- "
        elif name in _OURS:
            allowed, fix = "other options of sbatch", None
        else:
            continue
        what = f"{word} behind --: submit needs to know of it" if fix else f"{word} is submit's own"
        diagnostics.append(
            Diagnostic(what, value=word, where=f"-- … {word}", allowed=allowed, fix=fix)
        )
    return diagnostics


def _gpus(header: Mapping[str, str | None], behind: Sequence[str]) -> int:
    """GPUs of a node, as far as they are asked for by the node."""
    if match := _GPUS.fullmatch(header.get("gpus-per-node") or ""):
        return int(match[1])
    words = [w.partition("=") for w in [f"--gres={header.get('gres') or ''}", *_joined(behind)]]
    found = [_GPUS_OF_GRES.search(value) for name, _, value in words if name == "--gres"]
    return max((int(match[1] or 1) for match in found if match), default=0)


def _joined(behind: Sequence[str]) -> list[str]:
    """Words with the value that follows them."""
    return [*behind, *(f"{one}={value}" for one, value in pairwise(behind))]


def _exported(values: Mapping[str, str], is_torchrun: bool, told: Mapping[str, str]) -> list[str]:
    """Variables that the job is given."""
    found = {}
    if options.RANKS.flag in values:
        found[RANKS] = values[options.RANKS.flag]
    if is_torchrun:
        found[_LAUNCH] = "torchrun"
    # Without a word of the site on it, the job's Python is this one.
    if not any(told.get(name) for name in (*_PYTHON, site.VARIABLE)):
        found[_PYTHON[0]] = str(Path(sys.executable).absolute())
    return [f"{name}={value}" for name, value in found.items()]
