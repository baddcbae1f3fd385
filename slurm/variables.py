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

_RESTART_VARIABLE = "TORCHELASTIC_RESTART_COUNT"
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
    if "SLURM_PROCID" in environ and "SLURM_STEP_ID" in environ:
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
    # The id of a Slurm job, or of an array element.
    if not job or not number or not re.fullmatch("[0-9]+(_[0-9]+)?", job):
        raise InvalidEnvironment(
            f"{JOB_VARIABLE}={job}, {GENERATION_VARIABLE}={number}",
            f"both, as slurm/job.sh sets them, such as {JOB_VARIABLE}=123_4, or neither",
        )
    return Generation(
        job,
        number=_number(environ, GENERATION_VARIABLE),
        restart=_number(environ, _RESTART_VARIABLE, "0"),
    )


def _from_torchrun(environ: Mapping[str, str]) -> RankEnvironment:
    return _checked(
        RankEnvironment(
            rank=_number(environ, "RANK"),
            world_size=_number(environ, "WORLD_SIZE"),
            local_rank=_number(environ, "LOCAL_RANK"),
            local_size=_number(environ, "LOCAL_WORLD_SIZE"),
            node=_number(environ, "GROUP_RANK", "0"),
            master_addr=environ.get("MASTER_ADDR", ""),
            master_port=_number(environ, "MASTER_PORT"),
            source="torchrun",
        )
    )


def _from_srun(environ: Mapping[str, str]) -> RankEnvironment | None:
    # The count of the step: SLURM_NTASKS belongs to the job and is stale after a job shrinks.
    world_size = _number(environ, "SLURM_STEP_NUM_TASKS")
    if world_size == 1:
        return None
    node = _number(environ, "SLURM_NODEID")
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = _tasks_per_node(tasks)
    if node >= len(counts):
        raise InvalidEnvironment(
            f"SLURM_NODEID={node}, SLURM_STEP_TASKS_PER_NODE={tasks}",
            "tasks of each node as srun sets them, such as 4(x2),3",
        )
    # Every rank of a step computes the port, and two steps on a node seldom share it.
    step = 977 * _number(environ, "SLURM_STEP_ID")
    port = _FIRST_PORT + (_number(environ, "SLURM_JOB_ID") + step) % _PORTS
    shared = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", TOKEN)
    return _checked(
        RankEnvironment(
            rank=_number(environ, "SLURM_PROCID"),
            world_size=world_size,
            local_rank=_number(environ, "SLURM_LOCALID"),
            local_size=counts[node],
            node=node,
            master_addr=environ.get("MASTER_ADDR")
            or _first_host(environ.get("SLURM_STEP_NODELIST", "")),
            master_port=_number(environ, "MASTER_PORT", str(port)),
            source="srun",
            cpus=_cpus(environ, counts[node]),
            rendezvous=".".join(environ.get(name, "0") for name in shared),
        )
    )


def _checked(ranks: RankEnvironment) -> RankEnvironment:
    """`ranks`, whose numbers agree. Raises InvalidEnvironment."""
    if not ranks.master_addr:
        message = "neither MASTER_ADDR nor SLURM_STEP_NODELIST is set"
        raise InvalidEnvironment(message, "MASTER_ADDR: the host of rank 0")
    is_local = ranks.local_rank < ranks.local_size <= ranks.world_size
    if is_local and ranks.rank < ranks.world_size and 0 < ranks.master_port <= 65535:
        return ranks
    shown = [f"{name}={value}" for name, value in ranks.variables().items() if name != TOKEN]
    raise InvalidEnvironment(
        f"{ranks.source} started this process with {', '.join(shown)}",
        "RANK below WORLD_SIZE, LOCAL_RANK below LOCAL_WORLD_SIZE, MASTER_PORT: 1 to 65535",
    )


def _cpus(environ: Mapping[str, str], local_size: int) -> int | None:
    """The value of --cpus-per-task, or else an even share of the step's CPUs on this node."""
    ranks_of = {"SLURM_CPUS_PER_TASK": 1, "SRUN_CPUS_PER_TASK": 1, "SLURM_CPUS_ON_NODE": local_size}
    for name, ranks in ranks_of.items():
        if environ.get(name):
            return max(1, _number(environ, name) // ranks)
    return None


def _number(environ: Mapping[str, str], name: str, default: str = "") -> int:
    text = environ.get(name) or default
    if not re.fullmatch(r"[0-9]+", text.strip()):
        raise InvalidEnvironment(
            f"{name}={text}", f"{name}: a number, as torchrun, srun or job.sh sets it"
        )
    return int(text)


def _tasks_per_node(text: str) -> list[int]:
    """Tasks on each node, from Slurm's compressed list: `4(x2),3` means 4, 4 and 3.

    Empty: it is no such list.
    """
    if not re.fullmatch(r"([1-9][0-9]*(\(x[1-9][0-9]*\))?(,|$))+", text):
        return []
    counts = []
    for count, times in re.findall(r"([0-9]+)(?:\(x([0-9]+)\))?", text):
        counts += [int(count)] * int(times or 1)
    return counts


def _first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `node[01-04,7],big` gives node01; empty: none."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else ""
