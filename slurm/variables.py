"""Rank, world size and job generation, read from the variables of torchrun, srun and job.sh."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gearshift.slurm.environment import (
    GENERATION_VARIABLE,
    JOB_VARIABLE,
    TOKEN,
    Generation,
    InvalidEnvironment,
    RankEnvironment,
)

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


_RESTART_VARIABLE = "TORCHELASTIC_RESTART_COUNT"
_BOTH = f"both {JOB_VARIABLE} and {GENERATION_VARIABLE}, as slurm/job.sh sets them, or neither"
_FIRST_PORT = 20000
_PORTS = 12000
"""Ends below 32768, where the ephemeral ports of most systems begin."""


def read_rank_environment(environ: Mapping[str, str]) -> RankEnvironment | None:
    """The rank that torchrun or srun assigned to this process; None: started by neither.

    Variables of torchrun override those of srun, because torchrun may run inside srun. A step of
    one task is not a world: the process may start its own ranks. Raises InvalidEnvironment.
    """
    if "RANK" in environ or "WORLD_SIZE" in environ:
        return _from_torchrun(environ)
    # The batch script has SLURM_PROCID and SLURM_NTASKS too; only a step has a step id.
    if "SLURM_PROCID" in environ and ("SLURM_STEP_ID" in environ or "SLURM_STEPID" in environ):
        return _from_srun(environ)
    return None


def read_generation(environ: Mapping[str, str]) -> Generation | None:
    """The generation of this process; None: it was not started by a job script.

    Raises InvalidEnvironment if a variable is missing or is not a number.
    """
    job = environ.get(JOB_VARIABLE)
    number = environ.get(GENERATION_VARIABLE)
    if not job and not number:
        return None
    if not job or not number:
        message = f"{JOB_VARIABLE}={job} without {GENERATION_VARIABLE}"
        if number:
            message = f"{GENERATION_VARIABLE}={number} without {JOB_VARIABLE}"
        raise InvalidEnvironment(message, _BOTH)
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        allowed = f"{JOB_VARIABLE}: the id of a Slurm job, 123, or of an array element, 123_4"
        raise InvalidEnvironment(f"{JOB_VARIABLE}={job}", allowed)
    return Generation(
        job,
        number=_number(environ, GENERATION_VARIABLE),
        restart=_number_or_0(environ, _RESTART_VARIABLE),
    )


def parse_generation(text: str) -> Generation | None:
    """The generation that `str()` gave as `text`; None: `text` is something else."""
    match = re.fullmatch(r"([0-9]+(?:_[0-9]+)?)\.([0-9]+)(?:\.([0-9]+))?", text)
    if match is None:
        return None
    return Generation(match[1], int(match[2]), int(match[3] or 0))


def _from_torchrun(environ: Mapping[str, str]) -> RankEnvironment:
    present = [name for name in _TORCHRUN if environ.get(name)]
    missing = [name for name in _TORCHRUN if name not in present]
    if missing:
        raise InvalidEnvironment(
            f"{_shown(environ, *present)} without {', '.join(missing)}",
            f"all of {', '.join(_TORCHRUN)}, as torchrun sets them, or none",
        )
    ranks = RankEnvironment(
        rank=_number(environ, "RANK"),
        world_size=_number(environ, "WORLD_SIZE", least=1),
        local_rank=_number(environ, "LOCAL_RANK"),
        local_size=_number(environ, "LOCAL_WORLD_SIZE", least=1),
        node=_number_or_0(environ, "GROUP_RANK"),
        master_addr=environ["MASTER_ADDR"],
        master_port=_port(environ),
        source="torchrun",
    )
    _below(environ, "RANK", "WORLD_SIZE")
    _below(environ, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if ranks.local_size > ranks.world_size:
        sizes = _shown(environ, "LOCAL_WORLD_SIZE", "WORLD_SIZE")
        raise InvalidEnvironment(sizes, "LOCAL_WORLD_SIZE: at most WORLD_SIZE")
    return ranks


def _from_srun(environ: Mapping[str, str]) -> RankEnvironment | None:
    # SLURM_NTASKS belongs to the job and is stale after a job shrinks; the step's count is not.
    tasks = _first_of(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if _number(environ, tasks, least=1) == 1:
        return None
    _below(environ, "SLURM_PROCID", tasks)
    local = _first_of(environ, "SLURM_LOCALID")
    node = _first_of(environ, "SLURM_NODEID")
    local_size = _tasks_of_node(environ, _number(environ, node))
    if _number(environ, local) >= local_size:
        shown = _shown(environ, local, node)
        raise InvalidEnvironment(shown, f"SLURM_LOCALID: 0 to {local_size - 1}")

    step = "SLURM_STEP_ID" if "SLURM_STEP_ID" in environ else "SLURM_STEPID"
    if environ.get("MASTER_PORT"):
        port = _port(environ)
    else:
        # Every rank of a step computes it, and two steps on a node seldom share it.
        job = _number(environ, _first_of(environ, "SLURM_JOB_ID"))
        port = _FIRST_PORT + (job + 977 * _number(environ, step)) % _PORTS
    shared = ("SLURM_JOB_ID", step, "SLURM_RESTART_COUNT", TOKEN)
    return RankEnvironment(
        rank=_number(environ, "SLURM_PROCID"),
        world_size=_number(environ, tasks),
        local_rank=_number(environ, local),
        local_size=local_size,
        node=_number(environ, node),
        master_addr=_host_of_rank_0(environ),
        master_port=port,
        source="srun",
        cpus=_cpus(environ, local_size),
        rendezvous=".".join(environ.get(name, "0") for name in shared),
    )


def _host_of_rank_0(environ: Mapping[str, str]) -> str:
    host = environ.get("MASTER_ADDR")
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        host = host or first_host(environ.get(name, ""))
    if not host:
        message = f"{_shown(environ, 'SLURM_PROCID')} without MASTER_ADDR or SLURM_STEP_NODELIST"
        raise InvalidEnvironment(message, "MASTER_ADDR: the host of rank 0")
    return host


def _first_of(environ: Mapping[str, str], *names: str) -> str:
    """The first of the variables that is set."""
    for name in names:
        if name in environ:
            return name
    message = f"{_shown(environ, 'SLURM_PROCID')} without {' or '.join(names)}"
    raise InvalidEnvironment(message, "all of them, as srun sets them, or none")


def _cpus(environ: Mapping[str, str], local_size: int) -> int | None:
    """The value of --cpus-per-task, or else an even share of the step's CPUs on this node."""
    for name in ("SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK"):
        if environ.get(name):
            return _number(environ, name, least=1)
    if environ.get("SLURM_CPUS_ON_NODE"):
        return max(1, _number(environ, "SLURM_CPUS_ON_NODE", least=1) // local_size)
    return None


def _number(environ: Mapping[str, str], name: str, least: int = 0) -> int:
    text = environ[name].strip()
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise InvalidEnvironment(_shown(environ, name), f"{name}: an integer, at least {least}")
    return int(text)


def _number_or_0(environ: Mapping[str, str], name: str) -> int:
    return _number(environ, name) if environ.get(name) else 0


def _port(environ: Mapping[str, str]) -> int:
    port = _number(environ, "MASTER_PORT", least=1)
    if port > 65535:
        raise InvalidEnvironment(_shown(environ, "MASTER_PORT"), "MASTER_PORT: 1 to 65535")
    return port


def _below(environ: Mapping[str, str], name: str, limit: str) -> None:
    size = _number(environ, limit, least=1)
    if _number(environ, name) >= size:
        raise InvalidEnvironment(_shown(environ, name, limit), f"{name}: 0 to {size - 1}")


def _shown(environ: Mapping[str, str], *names: str) -> str:
    return ", ".join(f"{name}={environ[name]}" for name in names)


def _tasks_of_node(environ: Mapping[str, str], node: int) -> int:
    """Tasks on one node, from Slurm's compressed list: `4(x2),3` means 4, 4 and 3."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    if name not in environ:
        name = "SLURM_TASKS_PER_NODE"
    text = environ.get(name, "")
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9][0-9]*)(?:\(x([1-9][0-9]*)\))?", part.strip())
        if match is None:
            raise InvalidEnvironment(f"{name}={text}", f"{name} as srun sets it, such as 4(x2),3")
        counts += [int(match[1])] * int(match[2] or 1)
    if node >= len(counts):
        shown = _shown(environ, "SLURM_NODEID", name)
        raise InvalidEnvironment(shown, f"SLURM_NODEID: 0 to {len(counts) - 1}")
    return counts[node]


def first_host(nodes: str) -> str | None:
    """The first host of a Slurm node list: `node[01-04,7],big` gives node01."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if first is None:
        return None
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])
