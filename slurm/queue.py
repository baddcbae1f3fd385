"""Commands that ask Slurm: its partitions, and cancelling a job."""

from __future__ import annotations

import subprocess
from contextlib import suppress

COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "srun")
"""Slurm's commands that submitting and running a job needs."""
_TIMEOUT_S = 60.0


class QueueError(Exception):
    """Slurm did not answer; a later query may succeed."""


def cancel(job: str) -> None:
    """Cancel a job; does nothing if the job or Slurm is gone."""
    with suppress(QueueError):
        run("scancel", job)


def partitions(timeout_s: float) -> list[str]:
    """The partitions that the controller names. Raises QueueError if it does not answer."""
    result = run("sinfo", "-h", "-o", "%R", timeout_s=timeout_s)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"sinfo ended with {result.returncode}"]
        raise QueueError(lines[-1])
    return sorted(set(result.stdout.split()))


def run(*command: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands. Raises QueueError if it is missing or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise QueueError(f"{command[0]} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        raise QueueError(f"cannot run {command[0]}: {error.strerror or error}") from error
