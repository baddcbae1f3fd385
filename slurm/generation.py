"""Reads which life of which job this process belongs to, from what the job script has set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from slurm.environment import EnvironmentFault

JOB = "GEARSHIFT_JOB"
NUMBER = "GEARSHIFT_GENERATION"
RESTART = "TORCHELASTIC_RESTART_COUNT"
OF_A_JOB = frozenset({JOB, NUMBER})
"""The variables by which a process knows that it is of a job."""
FOLDER = "slurm"
"""In a run folder: what the job script, the generations and `sbatch` leave there."""
_BOTH = f"both {JOB} and {NUMBER}, as slurm/job.sh sets them, or neither"


@dataclass(frozen=True, order=True)
class Generation:
    """One life of a job: it is requeued, or goes on in another job of Slurm, as the next one."""

    job: str
    """The id of its first Slurm job; of an array element `JOB_INDEX`."""
    number: int
    """From 0."""
    restart: int = 0
    """How often torchrun has started its ranks anew in place."""

    def __str__(self) -> str:
        return f"{self.job}.{self.number}" + (f".{self.restart}" if self.restart else "")

    @property
    def described(self) -> str:
        """`generation 1 of Slurm job 12`."""
        again = f" (restart {self.restart})" if self.restart else ""
        return f"generation {self.number}{again} of Slurm job {self.job}"

    def told_to(self, other: Generation) -> str:
        """It as `other` calls it: a life of the same job without the job's name."""
        return self.described.partition(" of ")[0] if self.job == other.job else self.described

    def follows(self, other: Generation) -> bool:
        """Whether this is a later life of the same job."""
        return self.job == other.job and self > other


def read_generation(environ: Mapping[str, str]) -> Generation | None:
    """The generation that this process is of; None: no job script has started it.

    Raises EnvironmentFault where the variables are half set or no numbers.
    """
    job, number = environ.get(JOB), environ.get(NUMBER)
    if not job and not number:
        return None
    if not job or not number:
        name, value, missing = (JOB, job, NUMBER) if job else (NUMBER, number, JOB)
        raise EnvironmentFault(f"{name}={value} without {missing}", _BOTH)
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        allowed = f"{JOB} as the id of a Slurm job, 123, or of an array's element, 123_4"
        raise EnvironmentFault(f"{JOB}={job}", allowed)
    restart = environ.get(RESTART) or "0"
    return Generation(job, _number(NUMBER, number), _number(RESTART, restart))


def parse(text: str) -> Generation | None:
    """What `str` gave of a generation; None: it is something else."""
    match = re.fullmatch(r"([0-9]+(?:_[0-9]+)?)\.([0-9]+)(?:\.([0-9]+))?", text)
    return match and Generation(match[1], int(match[2]), int(match[3] or 0))


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise EnvironmentFault(f"{name}={text}", f"{name} as a whole number from 0 on")
    return int(text)
