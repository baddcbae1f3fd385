"""Rank, world size and job generation of a process, as torchrun, srun and job.sh assign them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TOKEN = "GEARSHIFT_RENDEZVOUS"
"""A secret that job.sh makes; engines/rendezvous.py reads it."""
JOB_VARIABLE = "GEARSHIFT_JOB"
GENERATION_VARIABLE = "GEARSHIFT_GENERATION"
JOB_VARIABLES = frozenset({JOB_VARIABLE, GENERATION_VARIABLE})
"""Set by slurm/job.sh for the processes of its job."""
_OF_RANKS = frozenset({"RANK", "WORLD_SIZE", "SLURM_PROCID"})
SLURM_FOLDER = "slurm"
"""Subfolder of a run folder: job script, outcomes and logs of its Slurm jobs."""


def is_launched(environ: Mapping[str, str]) -> bool:
    """Whether there are variables of torchrun, srun or job.sh, which slurm/variables.py reads."""
    return not environ.keys().isdisjoint(_OF_RANKS | JOB_VARIABLES)


class InvalidEnvironment(Exception):
    """Environment variables contradict each other, or some are missing.

    `message` names the variables and their values; `allowed` names the values that are valid.
    """

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(f"{message}; {allowed}")
        self.message = message
        self.allowed = allowed


@dataclass(frozen=True)
class RankEnvironment:
    """Rank, world size and rendezvous address of one process, as torch.distributed needs them."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    node: int
    master_addr: str
    master_port: int
    source: Literal["torchrun", "srun"]
    cpus: int | None = None
    """CPUs that Slurm allocated to this rank; None: unknown."""
    rendezvous: str = ""
    """What only the ranks of one job step share; empty: torchrun keeps ranks apart."""

    @property
    def spans_nodes(self) -> bool:
        """Whether some ranks run on another machine."""
        return self.world_size > self.local_size

    def variables(self) -> dict[str, str]:
        """The environment variables from which torch.distributed initializes."""
        variables = {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "GROUP_RANK": str(self.node),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }
        if self.rendezvous:
            variables[TOKEN] = self.rendezvous
        return variables


@dataclass(frozen=True, order=True)
class Generation:
    """One start of a job; a requeue, or a successor job, is the next generation."""

    job: str
    """The id of the job's first Slurm job; of an array element `JOB_INDEX`."""
    number: int
    """From 0."""
    restart: int = 0
    """How often torchrun has restarted the ranks within this generation."""

    @property
    def description(self) -> str:
        """`generation 1 of Slurm job 12`."""
        restart = f" (restart {self.restart})" if self.restart else ""
        return f"generation {self.number}{restart} of Slurm job {self.job}"

    def follows(self, other: Generation) -> bool:
        """Whether this is a later generation of the same job."""
        return self.job == other.job and self > other
