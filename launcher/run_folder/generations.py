"""Generations of a Slurm job in a run folder: claims, fencing, starts and statistics."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from gearshift.launcher.base import environment
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.slurm.environment import SLURM_FOLDER, Generation
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.logging.metrics import append_event
from gearshift.training.storage import Storage, storage_errors

NAME = "generations.jsonl"
_CLAIMED = "claimed"
_STARTED = "began"


@dataclass(frozen=True)
class _Line:
    """What is read of a line."""

    kind: str
    job: str
    generation: int
    restart: int
    lost_steps: int = 0


_LINE = TypeAdapter(_Line)


def record_start(storage: Storage, generation: Generation, step: int, world_size: int) -> None:
    """Record that `generation` starts after `step`, before lines of later steps are removed.

    From the second generation on also as an event "requeued". For rank 0. Touches the disk. Raises
    StorageError.
    """
    run = storage.path
    lost_steps = 0
    if starts(run, generation):
        steps = [line["step"] for line in RunReader(run).metrics() if line["kind"] == "train"]
        lost_steps = max(0, max(steps, default=0) - step)
    facts = {
        "hosts": environment.variables().get("SLURM_JOB_NODELIST") or socket.gethostname(),
        "ranks": world_size,
        "from_step": step,
        "lost_steps": lost_steps,
    }
    _append(run, _STARTED, generation, facts)
    if generation.number or generation.restart:
        job = {**_fields(generation), "slurm_job": environment.variables().get("SLURM_JOB_ID")}
        append_event(storage, "requeued", step, {**job, **facts})


def requeue_statistics(run: Path, generation: Generation) -> Facts:
    """Fields of result.json about the job: requeues and lost steps. Reads the disk."""
    lost = sum(line["lost_steps"] for line in starts(run, generation))
    return {"requeues": generation.number, "lost_steps": lost}


def has_predecessor(run: Path, generation: Generation) -> bool:
    """Whether an earlier generation of the same job claimed `run`, and no other job since.

    Its own claim does not count: some ranks check before rank 0 has claimed the run, and all must
    come to the same result. Reads the disk.
    """
    claims = claimed(run)
    is_last = bool(claims) and claims[-1].job == generation.job
    return is_last and any(map(generation.follows, claims))


def owner(run: Path, generation: Generation) -> Generation:
    """The latest generation of the job that claimed `run` last.

    If `generation` has not claimed it, it will next. The claim of a delayed generation comes behind
    those of its successors. Reads the disk.
    """
    claims = claimed(run)
    if generation not in claims:
        claims.append(generation)
    return max(claim for claim in claims if claim.job == claims[-1].job)


def is_latest(run: Path, generation: Generation) -> bool:
    """Whether no later generation and no other job after it has claimed `run`. Reads the disk."""
    return owner(run, generation) == generation


def claimed(run: Path) -> list[Generation]:
    """The generations that claimed `run`, in their order. Reads the disk."""
    return [
        Generation(line["job"], line["generation"], line["restart"])
        for line in lines(run)
        if line["kind"] == _CLAIMED
    ]


def claim(run: Path, generation: Generation) -> None:
    """Claim `run` for `generation`, once. Touches the disk. Raises StorageError."""
    for _ in range(2):  # the first line may only complete one that a kill cut off
        if generation in claimed(run):
            return
        _append(
            run, _CLAIMED, generation, {"slurm_job": environment.variables().get("SLURM_JOB_ID")}
        )


class FencedOff(OSError):
    """A later generation has claimed the run: this one can no longer write to it."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = owner(run, generation).description
        super().__init__(f"{generation.description} is fenced off: {later} has claimed {run}")


def take_over(run: Path, generation: Generation) -> None:
    """Claim `run` for `generation`, unless a later one has. For rank 0. Touches the disk.

    A node that Slurm considers DOWN may still compute, and a process that hung may continue. Files
    that grow by lines are therefore replaced by copies: an earlier process has the unlinked ones
    open, which its next line finds. Of two generations that start at once the later one wins, since
    each claims before it checks. Raises FencedOff and StorageError.
    """
    if is_latest(run, generation):
        claim(run, generation)
    if not is_latest(run, generation):
        raise FencedOff(run, generation)
    for path in (*sorted(run.glob("*.jsonl")), run / "log.txt"):
        if path.exists():
            with storage_errors(path):
                content = path.read_bytes()
                Storage(run).atomic_write(path.name, content[: content.rfind(b"\n") + 1])


@contextmanager
def fencing(run: Path, generation: Generation) -> Iterator[Storage]:
    """The storage of `run`, which checks before each file that `generation` still owns the run.

    An error in the block is FencedOff if a later generation has claimed the run.
    """

    def check() -> None:
        if not is_latest(run, generation):
            raise FencedOff(run, generation)

    try:
        yield Storage(run, check)
    except FencedOff:
        raise
    except Exception:
        check()
        raise


def starts(run: Path, generation: Generation) -> list[Json]:
    """The recorded starts of the job of `generation`, in their order. Reads the disk."""
    kind = (_STARTED, generation.job)
    return [line for line in lines(run) if (line["kind"], line["job"]) == kind]


def lines(run: Path) -> list[Json]:
    """All complete lines of generations.jsonl, the earliest first. Reads the disk."""
    return [*RunReader(run).lines(f"{SLURM_FOLDER}/{NAME}", _LINE)]


def _append(run: Path, kind: str, generation: Generation, facts: Facts) -> None:
    folder = run / SLURM_FOLDER
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    line = {"kind": kind, "time": time.time(), **_fields(generation), **facts}
    Storage(folder).append_line(NAME, encode_bytes(line))


def _fields(generation: Generation) -> Json:
    return {"job": generation.job, "generation": generation.number, "restart": generation.restart}
