"""Generations of a Slurm job in a run folder: claims, fencing, starts, statistics and outcomes."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from launcher.base import environment, exit_codes
from slurm.environment import SLURM_FOLDER, Generation, InvalidEnvironment, read_generation
from training.logging import events
from training.logging.strict_json import encode_bytes
from training.storage import Storage, open_staged, publish_new, storage_errors

NAME = "generations.jsonl"
OUTCOMES = {0: "done", 1: "failed", 2: "invalid", 75: "again", 130: "again"}
"""First word of an outcome file, which slurm/job.sh reads, by exit code."""
_OUT = "--out"
_CLAIMED = "claimed"
_STARTED = "began"


def start_publisher(argv: Sequence[str], environ: Mapping[str, str]) -> Callable[[str], bool]:
    """Publishes, while a run starts, that the job script is to run it again; see `publish_outcome`."""
    generation = None
    with suppress(InvalidEnvironment):  # reported when all arguments are checked
        generation = read_generation(environ)
    words = [word for argument in argv for word in argument.split("=", 1)]
    place = words.index(_OUT) + 1 if _OUT in words else len(words)  # before arguments are parsed
    if generation is None or not (out := "".join(words[place : place + 1])):
        return lambda text: True
    return partial(publish_outcome, Path(out), generation, exit_codes.RUN_AGAIN)


def record_start(storage: Storage, generation: Generation, step: int, world_size: int) -> None:
    """Record that `generation` starts after `step`, before lines of later steps are removed.

    From the second generation on also as an event "requeued". For rank 0. Touches the disk. Raises
    StorageError.
    """
    from launcher.run_folder.reader import RunReader  # slow: signal handlers come first

    run = storage.path
    trained = [line["step"] for line in RunReader(run).metrics() if line["kind"] == "train"]
    facts = {
        "hosts": environment.variables().get("SLURM_JOB_NODELIST") or socket.gethostname(),
        "ranks": world_size,
        "from_step": step,
        "lost_steps": max(0, max(trained, default=0) - step) if starts(run, generation) else 0,
    }
    _append(run, _STARTED, generation, facts)
    if generation.number or generation.restart:
        job = {**_fields(generation), "slurm_job": environment.variables().get("SLURM_JOB_ID")}
        events.append_event(storage, "requeued", step, {**job, **facts})


def requeue_statistics(run: Path, generation: Generation) -> Mapping[str, Any]:
    """Fields of result.json about the job: requeues and lost steps. Reads the disk."""
    lost = sum(line["lost_steps"] for line in starts(run, generation))
    return {"requeues": generation.number, "lost_steps": lost}


def has_predecessor(run: Path, generation: Generation) -> bool:
    """Whether an earlier generation of the same job claimed `run`, and no other job since.

    Its own claim does not count: some ranks check before rank 0 has claimed the run, and all must
    come to the same result. Reads the disk.
    """
    known = claimed(run)
    is_owner = bool(known) and known[-1].job == generation.job
    return is_owner and any(generation.follows(claim) for claim in known)


def owner(run: Path, generation: Generation) -> Generation:
    """The latest generation of the job that claimed `run` last; if `generation` has not, it will next.

    The claim of a delayed generation comes behind those of its successors. Reads the disk.
    """
    known = claimed(run)
    known += [] if generation in known else [generation]
    return max(claim for claim in known if claim.job == known[-1].job)


def is_latest(run: Path, generation: Generation) -> bool:
    """Whether no later generation and no other job after it has claimed `run`. Reads the disk."""
    return owner(run, generation) == generation


def claimed(run: Path) -> list[Generation]:
    """The generations that claimed `run`, in their order. Reads the disk."""
    return [_generation(line) for line in lines(run) if line["kind"] == _CLAIMED]


def claim(run: Path, generation: Generation) -> None:
    """Claim `run` for `generation`, once. Touches the disk. Raises StorageError."""
    for _ in range(2):  # the first line may only complete one that a kill cut off
        if generation in claimed(run):
            return
        _append(run, _CLAIMED, generation, {"slurm_job": environment.variables().get("SLURM_JOB_ID")})


class FencedOff(OSError):
    """A later generation has claimed the run: this one can no longer write to it."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = owner(run, generation).description_for(generation)
        super().__init__(errno.EPERM, f"{generation.description} is fenced off: {later} has claimed {run}")

    def __str__(self) -> str:
        return str(self.strerror)


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


def starts(run: Path, generation: Generation) -> list[Mapping[str, Any]]:
    """The recorded starts of the job of `generation`, in their order. Reads the disk."""
    return [line for line in lines(run) if line["kind"] == _STARTED and line["job"] == generation.job]


def lines(run: Path) -> Sequence[Mapping[str, Any]]:
    """All complete lines of generations.jsonl, the earliest first. Reads the disk."""
    from launcher.run_folder.reader import RunReader  # as in `record_start`

    valid = []
    for line in RunReader(run).lines(f"{SLURM_FOLDER}/{NAME}"):
        with suppress(ValueError, TypeError, KeyError):
            _generation(line)
            valid.append(line)
    return valid


def outcome_path(run: Path, generation: Generation) -> Path:
    """The outcome file of a generation; restarts by torchrun in place share it."""
    return run / SLURM_FOLDER / f"outcome.{generation.job}.{generation.number}"


def publish_outcome(run: Path, generation: Generation, code: int, text: str = "") -> bool:
    """Write the outcome file for exit code `code`, atomically; whether it is the one that counts.

    The first outcome counts, since the first failed rank takes others along; but code 0 always
    counts. `text` is for users. If the disk is full or the folder is missing there is no outcome,
    which the job script treats as a crash. Touches the disk.
    """
    final = outcome_path(run, generation)
    staged = final.with_name(f".{final.name}.{os.getpid()}")
    lines = [f"{OUTCOMES.get(code, 'failed')} {code}", *text.splitlines(), ""]
    try:
        with open_staged(staged) as file:
            file.write("\n".join(lines).encode(errors="backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        if code == 0:
            staged.replace(final)
        else:
            publish_new(staged, final)
        return True
    except OSError:  # FileExistsError: another outcome counts
        return False
    finally:
        with suppress(OSError):
            staged.unlink()


def _append(run: Path, kind: str, generation: Generation, facts: Mapping[str, Any]) -> None:
    folder = run / SLURM_FOLDER
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    line = {"kind": kind, "time": time.time(), **_fields(generation), **facts}
    Storage(folder).append_line(NAME, encode_bytes(line))


def _fields(generation: Generation) -> dict[str, Any]:
    return {"job": generation.job, "generation": generation.number, "restart": generation.restart}


def _generation(line: Mapping[str, Any]) -> Generation:
    return Generation(str(line["job"]), int(line["generation"]), int(line["restart"]))
