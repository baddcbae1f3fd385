"""Asks Slurm how a job stands: scontrol first, then what keeps record of jobs that ended."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

_ASK_S = 60.0
_FIELD = re.compile(r"(?:^| )([A-Z][A-Za-z/:]*)=(\S*)")
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("REVOKED", "TIMEOUT"),
)
"""States that a job does not leave by itself. PREEMPTED is one only where it is not requeued."""


class QueueError(Exception):
    """Slurm did not answer; it may later."""


@dataclass(frozen=True)
class State:
    """How a job stands."""

    name: str
    """PENDING, RUNNING, COMPLETED, and so on."""
    reason: str = ""
    """Why it waits; empty: nothing is told."""
    nodes: str = ""
    """Where it runs or ran, in Slurm's short form."""
    restarts: int = 0

    @property
    def is_ended(self) -> bool:
        """Whether nothing more comes of this job of Slurm."""
        return self.name in _ENDED


def look_up(job: str) -> State | None:
    """How a job stands, ID or ARRAY_INDEX; None: nobody remembers it. Raises QueueError."""
    done = _ask("scontrol", "show", "job", "-o", job)
    if done.returncode == 0 and (state := parse(done.stdout)) is not None:
        return state
    if done.returncode and "Invalid job id" not in done.stderr:
        raise QueueError(done.stderr.strip() or f"scontrol ended with {done.returncode}")
    # Minutes after its end scontrol has forgotten a job; accounting remembers, where there is any.
    try:
        kept = _ask("sacct", "-X", "-n", "-P", "-o", "State,NodeList", "-j", job)
    except QueueError:
        return None
    name, _, nodes = (kept.stdout.splitlines() or [""])[-1].partition("|")
    return State(name.split()[0], nodes=nodes) if kept.returncode == 0 and name else None


def parse(text: str) -> State | None:
    """The last job that `scontrol show job -o` has told of; None: of none."""
    lines = [line for line in text.splitlines() if line.startswith("JobId=")]
    if not lines:
        return None
    told: Mapping[str, str] = dict(reversed(_FIELD.findall(lines[-1])))
    reason = told.get("Reason", "")
    nodes = told.get("NodeList", "")
    return State(
        told.get("JobState", ""),
        "" if reason == "None" else reason,
        "" if nodes == "(null)" else nodes,
        int(told.get("Restarts") or 0),
    )


def cancel(job: str) -> None:
    """Take a job out of the queue, or end it; nothing happens where it is gone, or Slurm is."""
    with suppress(QueueError):
        _ask("scancel", job)


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    arguments: Sequence[str] = words
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=_ASK_S)
    except subprocess.TimeoutExpired:
        raise QueueError(f"{words[0]} has not answered for {_ASK_S:g} s") from None
    except OSError as fault:
        raise QueueError(f"{words[0]} cannot be run: {fault.strerror or fault}") from fault
