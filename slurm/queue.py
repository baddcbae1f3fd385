"""The state of Slurm jobs, from scontrol and, for ended jobs, from sacct."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "srun")
"""Slurm's commands that submitting, following and running a job needs."""
_TIMEOUT_S = 60.0
_FIELD = re.compile(r"(?:^| )([A-Z][A-Za-z/:]*)=(\S*)")
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("REVOKED", "TIMEOUT"),
)
"""Final states. PREEMPTED is not one: the job may be requeued."""


class QueueError(Exception):
    """Slurm did not answer; a later query may succeed."""


@dataclass(frozen=True)
class JobState:
    """The state of a job."""

    name: str
    """PENDING, RUNNING, COMPLETED, and so on."""
    reason: str = ""
    """Why it is pending; empty: unknown."""
    nodes: str = ""
    """Its nodes, in Slurm's compressed form."""
    restarts: int = 0

    @property
    def is_ended(self) -> bool:
        """Whether the state is final."""
        return self.name in _ENDED


def look_up(job: str) -> JobState | None:
    """The state of a job, ID or ARRAY_INDEX; None: Slurm has no record of it. Raises QueueError."""
    done = _run("scontrol", "show", "job", "-o", job)
    if done.returncode == 0 and (state := parse(done.stdout)) is not None:
        return state
    if done.returncode and "Invalid job id" not in done.stderr:
        raise QueueError(done.stderr.strip() or f"scontrol ended with {done.returncode}")
    # scontrol forgets a job minutes after its end; sacct needs accounting, which may be missing.
    try:
        record = _run("sacct", "-X", "-n", "-P", "-o", "State,NodeList", "-j", job)
    except QueueError:
        return None
    name, _, nodes = (record.stdout.splitlines() or [""])[-1].partition("|")
    return JobState(name.split()[0], nodes=nodes) if record.returncode == 0 and name else None


def parse(text: str) -> JobState | None:
    """The state of the last job in the output of `scontrol show job -o`; None: no job."""
    lines = [line for line in text.splitlines() if line.startswith("JobId=")]
    if not lines:
        return None
    values: Mapping[str, str] = dict(reversed(_FIELD.findall(lines[-1])))
    reason = values.get("Reason", "")
    nodes = values.get("NodeList", "")
    return JobState(
        values.get("JobState", ""),
        "" if reason == "None" else reason,
        "" if nodes == "(null)" else nodes,
        int(values.get("Restarts") or 0),
    )


def cancel(job: str) -> None:
    """Cancel a job; does nothing if the job or Slurm is gone."""
    with suppress(QueueError):
        _run("scancel", job)


def partitions(timeout_s: float) -> list[str]:
    """The partitions that the controller names. Raises QueueError if it does not answer."""
    done = _run("sinfo", "-h", "-o", "%R", timeout_s=timeout_s)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"sinfo ended with {done.returncode}"]
        raise QueueError(lines[-1])
    return sorted(set(done.stdout.split()))


def _run(*command: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command[0]} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise QueueError(f"cannot run {command[0]}: {error.strerror or error}") from error
