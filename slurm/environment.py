"""Reads this process's place among the ranks from the environment of torchrun or srun."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FIRST_PORT = 20000
_PORTS = 12000
"""Below 32768, where systems begin to give ports away by themselves."""


class EnvironmentFault(Exception):
    """Variables that contradict one another or are half set.

    `what` names the variables with their values, `legal` says what would do.
    """

    def __init__(self, what: str, allowed: str) -> None:
        super().__init__(f"{what}; {allowed}")
        self.what = what
        self.allowed = allowed


@dataclass(frozen=True)
class Place:
    """One rank's place, as torch wants to be told it."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    node: int
    master_addr: str
    master_port: int
    source: Literal["torchrun", "srun"]
    cpus: int | None = None
    """CPUs that Slurm gave this rank; None: nobody told."""
    meeting: str = ""
    """What the ranks of one step know each other by; empty: torchrun sees to that."""

    @property
    def spans_nodes(self) -> bool:
        """Whether some of the ranks are on another machine."""
        return self.world_size > self.local_size

    def variables(self) -> dict[str, str]:
        """The environment from which torch.distributed starts."""
        named = {"GEARSHIFT_MEETING": self.meeting} if self.meeting else {}
        return named | {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "GROUP_RANK": str(self.node),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }


def read_place(environ: Mapping[str, str]) -> Place | None:
    """The place that torchrun or srun gave this process; None: nobody did, it was started alone.

    What torchrun sets goes before what srun sets, for torchrun may run inside srun. A step of one
    task is no world: the process may start its own. Raises EnvironmentFault.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        return _from_torchrun(environ)
    # The batch script itself has SLURM_PROCID and SLURM_NTASKS too: only a step has a step number.
    if "SLURM_PROCID" in environ and ("SLURM_STEP_ID" in environ or "SLURM_STEPID" in environ):
        return _from_srun(environ)
    return None


def _from_torchrun(environ: Mapping[str, str]) -> Place:
    missing = [name for name in _TORCHRUN if not environ.get(name)]
    if missing:
        given = _shown(environ, *(name for name in _TORCHRUN if environ.get(name)))
        raise EnvironmentFault(
            f"{given} without {', '.join(missing)}",
            f"all of {', '.join(_TORCHRUN)}, as torchrun sets them, or none of them",
        )
    place = Place(
        rank=_number(environ, "RANK"),
        world_size=_number(environ, "WORLD_SIZE", least=1),
        local_rank=_number(environ, "LOCAL_RANK"),
        local_size=_number(environ, "LOCAL_WORLD_SIZE", least=1),
        node=_number(environ, "GROUP_RANK") if environ.get("GROUP_RANK") else 0,
        master_addr=environ["MASTER_ADDR"],
        master_port=_port(environ),
        source="torchrun",
    )
    _below(environ, "RANK", "WORLD_SIZE")
    _below(environ, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if place.local_size > place.world_size:
        raise EnvironmentFault(
            _shown(environ, "LOCAL_WORLD_SIZE", "WORLD_SIZE"),
            "LOCAL_WORLD_SIZE at most WORLD_SIZE",
        )
    return place


def _from_srun(environ: Mapping[str, str]) -> Place | None:
    # SLURM_NTASKS is the job's and stays stale when a job shrinks; the step's own number does not.
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    if tasks not in environ:
        raise EnvironmentFault(
            f"{_shown(environ, 'SLURM_PROCID')} without SLURM_STEP_NUM_TASKS or SLURM_NTASKS",
            "all of them, as srun sets them, or none of them",
        )
    if _number(environ, tasks, least=1) == 1:
        return None
    _below(environ, "SLURM_PROCID", tasks)
    for name in ("SLURM_LOCALID", "SLURM_NODEID"):
        if name not in environ:
            raise EnvironmentFault(
                f"{_shown(environ, 'SLURM_PROCID', tasks)} without {name}",
                "all of them, as srun sets them, or none of them",
            )
    local_size = _tasks_of_node(environ, _number(environ, "SLURM_NODEID"))
    if _number(environ, "SLURM_LOCALID") >= local_size:
        raise EnvironmentFault(
            _shown(environ, "SLURM_LOCALID", "SLURM_NODEID", _tasks_name(environ)),
            f"SLURM_LOCALID from 0 to {local_size - 1}",
        )
    return Place(
        rank=_number(environ, "SLURM_PROCID"),
        world_size=_number(environ, tasks),
        local_rank=_number(environ, "SLURM_LOCALID"),
        local_size=local_size,
        node=_number(environ, "SLURM_NODEID"),
        master_addr=environ.get("MASTER_ADDR") or _first_host(environ),
        master_port=_port(environ) if environ.get("MASTER_PORT") else _job_port(environ),
        source="srun",
        cpus=_cpus(environ, local_size),
        meeting=_meeting(environ),
    )


def _cpus(environ: Mapping[str, str], local_size: int) -> int | None:
    """What --cpus-per-task came to; else an even share of what the step has on this node."""
    for name in ("SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK"):
        if environ.get(name):
            return _number(environ, name, least=1)
    if environ.get("SLURM_CPUS_ON_NODE"):
        return max(1, _number(environ, "SLURM_CPUS_ON_NODE", least=1) // local_size)
    return None


def _meeting(environ: Mapping[str, str]) -> str:
    """A name that no other step has, nor the same one in another life of its job."""
    names = ("SLURM_JOB_ID", _step_name(environ), "SLURM_RESTART_COUNT")
    return ".".join(environ.get(name, "0") for name in names)


def _number(environ: Mapping[str, str], name: str, least: int = 0) -> int:
    text = environ[name].strip()
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise EnvironmentFault(_shown(environ, name), f"{name} as a whole number from {least} on")
    return int(text)


def _port(environ: Mapping[str, str]) -> int:
    port = _number(environ, "MASTER_PORT", least=1)
    if port > 65535:
        raise EnvironmentFault(_shown(environ, "MASTER_PORT"), "MASTER_PORT from 1 to 65535")
    return port


def _below(environ: Mapping[str, str], name: str, limit: str) -> None:
    size = _number(environ, limit, least=1)
    if _number(environ, name) >= size:
        raise EnvironmentFault(_shown(environ, name, limit), f"{name} from 0 to {size - 1}")


def _shown(environ: Mapping[str, str], *names: str) -> str:
    return ", ".join(f"{name}={environ[name]}" for name in names)


def _tasks_name(environ: Mapping[str, str]) -> str:
    step = "SLURM_STEP_TASKS_PER_NODE"
    return step if step in environ else "SLURM_TASKS_PER_NODE"


def _tasks_of_node(environ: Mapping[str, str], node: int) -> int:
    """Tasks on one node, from Slurm's short form: `4(x2),3` is 4, 4 and 3."""
    name = _tasks_name(environ)
    text = environ.get(name, "")
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9][0-9]*)(?:\(x([1-9][0-9]*)\))?", part.strip())
        if match is None:
            raise EnvironmentFault(
                f"{name}={text}", f"{name} as srun sets it, for example 4(x2),3 for 4, 4 and 3"
            )
        counts += [int(match[1])] * int(match[2] or 1)
    if node >= len(counts):
        raise EnvironmentFault(
            _shown(environ, "SLURM_NODEID", name), f"SLURM_NODEID from 0 to {len(counts) - 1}"
        )
    return counts[node]


def first_host(nodes: str) -> str | None:
    """The first host of a node list as Slurm writes it: `node[01-04,7],big` gives node01."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else None


def _first_host(environ: Mapping[str, str]) -> str:
    """The host of rank 0: the first of the step's."""
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if host := first_host(environ.get(name, "")):
            return host
    raise EnvironmentFault(
        f"{_shown(environ, 'SLURM_PROCID')} without MASTER_ADDR or SLURM_STEP_NODELIST",
        "MASTER_ADDR as the host of rank 0",
    )


def _job_port(environ: Mapping[str, str]) -> int:
    """A port that all ranks of one step derive alike, and two steps of a node seldom share.

    Where they do, engines/rendezvous.py takes one of the next.
    """
    if "SLURM_JOB_ID" not in environ:
        raise EnvironmentFault(
            f"{_shown(environ, 'SLURM_PROCID')} without MASTER_PORT or SLURM_JOB_ID",
            "MASTER_PORT from 1 to 65535",
        )
    number = _number(environ, "SLURM_JOB_ID") + 977 * _number(environ, _step_name(environ))
    return _FIRST_PORT + number % _PORTS


def _step_name(environ: Mapping[str, str]) -> str:
    return "SLURM_STEP_ID" if "SLURM_STEP_ID" in environ else "SLURM_STEPID"
