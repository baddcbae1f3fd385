"""What the generations of a job began with, and what they come to: requeues, lost steps, time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.run_folder import run_folder
from slurm.environment import SLURM_FOLDER, Generation
from training.logging import events
from training.logging.strict_json import encode_bytes
from training.storage import LineFile, Storage, storage_errors


def begin(run: Path, generation: Generation, step: int, ranks: int, door: Path | None) -> None:
    """Note that `generation` goes on from `step`, before lines of later steps are taken out.

    One that is not the first is told in events.jsonl too. For rank 0. Touches the disk. Raises
    StorageError.
    """
    trained = [line["step"] for line in _train_lines(run)]
    facts = {
        "hosts": os.environ.get("SLURM_JOB_NODELIST") or socket.gethostname(),
        "ranks": ranks,
        "from_step": step,
        "lost_steps": max(0, max(trained, default=0) - step) if began(run, generation) else 0,
    }
    note(run, BEGAN, generation, facts)
    if generation.number or generation.restart:
        told = {
            "job": generation.job,
            "generation": generation.number,
            "restart": generation.restart,
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }
        events.append_event(Storage(run, door), "requeued", step, {**told, **facts})


def account(run: Path, generation: Generation) -> Mapping[str, Any]:
    """What result.json tells of the job at its end: requeues, lost steps, share of time that stays.

    The share is the seconds of steps that were kept, by metrics.jsonl, to those since the first
    generation began: waiting in the queue, starting, evaluating and saving are not in it. Reads the
    disk.
    """
    of_job = [one for one in lines(run) if one["job"] == generation.job]
    begun = began(run, generation)
    first = begun[0]["from_step"] if begun else 0
    seconds = time.time() - min((one["time"] for one in of_job), default=time.time())
    return {
        "requeues": generation.number,
        "lost_steps": sum(one["lost_steps"] for one in begun),
        "effective_training_share": _kept_seconds(run, first) / seconds if seconds > 0 else None,
    }


def _kept_seconds(run: Path, first: int) -> float:
    """Seconds of the steps after `first`; each line has their mean since the one before."""
    seconds, before = 0.0, first
    for line in _train_lines(run):
        if line["step"] > before:
            seconds += (line["step"] - before) * float(line["step_time_s"])
            before = line["step"]
    return seconds


def _train_lines(run: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = (run / run_folder.METRICS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        try:
            found = json.loads(line)
        except ValueError:  # the end of a line that a kill cut off
            continue
        if found["kind"] == "train":
            yield found


NAME = "generations.jsonl"
CLAIMED = "claimed"
BEGAN = "began"


def belongs(run: Path, generation: Generation) -> bool:
    """Whether an earlier generation of the same job has begun in `run`, and no other job since.

    The own claim does not count: of the ranks of one generation some look before rank 0 has made
    it, and all must decide alike. Reads the disk.
    """
    known = claimed(run)
    is_owner = bool(known) and known[-1].job == generation.job
    return is_owner and any(generation.follows(one) for one in known)


def latest(run: Path) -> Generation | None:
    """The latest generation of the job that began in `run` last. Reads the disk."""
    known = claimed(run)
    return max(one for one in known if one.job == known[-1].job) if known else None


def is_latest(run: Path, generation: Generation) -> bool:
    """Whether no later life of the job has claimed `run`, nor another job after it."""
    known = claimed(run)
    # A life that was held up before it could claim comes late, and behind those that follow it.
    since = known[known.index(generation) :] if generation in known else []
    is_over = any(one.job != generation.job for one in since)
    return not is_over and not any(one.follows(generation) for one in known)


def claimed(run: Path) -> list[Generation]:
    """The generations that have begun in `run`, in their order. Reads the disk."""
    return [_generation(one) for one in lines(run) if one["kind"] == CLAIMED]


def claim(run: Path, generation: Generation) -> None:
    """Note that `generation` begins in `run`, unless it is noted. Raises StorageError."""
    for _ in range(2):  # the first only ends the line that a kill has cut off, where there is one
        if generation in claimed(run):
            return
        note(run, CLAIMED, generation, {"slurm_job": os.environ.get("SLURM_JOB_ID")})


def began(run: Path, generation: Generation) -> list[Mapping[str, Any]]:
    """What lives of the same job began training with, in their order. Reads the disk."""
    return [one for one in lines(run) if one["kind"] == BEGAN and one["job"] == generation.job]


def note(run: Path, kind: str, generation: Generation, facts: Mapping[str, Any]) -> None:
    """Append a line about `generation`. Touches the disk. Raises StorageError."""
    folder = run / SLURM_FOLDER
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    of = {"job": generation.job, "generation": generation.number, "restart": generation.restart}
    file = LineFile(folder / NAME)
    try:
        file.write(encode_bytes({"kind": kind, "time": time.time(), **of, **facts}))
    finally:
        file.close()


def lines(run: Path) -> Sequence[Mapping[str, Any]]:
    """All that was noted, the earliest first; half a line of a kill is left out. Reads the disk."""
    try:
        text = (run / SLURM_FOLDER / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.split("\n"):
        try:
            value = json.loads(line)
            _generation(value)
        except (ValueError, TypeError, KeyError):
            continue
        found.append(value)
    return found


def _generation(line: Mapping[str, Any]) -> Generation:
    return Generation(str(line["job"]), int(line["generation"]), int(line["restart"]))


WORDS = {0: "done", 1: "failed", 2: "invalid", 75: "again", 130: "again"}
"""What the script reads first in the file, by exit code."""


def path(run: Path, generation: Generation) -> Path:
    """The file of a generation; those that torchrun started anew in place share it."""
    return run / SLURM_FOLDER / f"outcome.{generation.job}.{generation.number}"


def publish_outcome(run: Path, generation: Generation, code: int, text: str = "") -> bool:
    """Write the outcome of `code`, whole or not at all; whether it is ours that counts now.

    The first one stands, for a rank that failed goes before those that it took along; but work
    that is done stays done. `text` is for people. Where the disk is full or the folder gone there
    is no outcome, which the script takes for a crash. Touches the disk.
    """
    final = path(run, generation)
    made = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        with made.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join([f"{WORDS.get(code, 'failed')} {code}", *text.splitlines(), ""]))
            file.flush()
            os.fsync(file.fileno())
        return _put(made, final, replaces=code == 0)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            made.unlink()


def _put(made: Path, final: Path, replaces: bool) -> bool:
    if replaces:
        made.replace(final)
        return True
    try:
        os.link(made, final)  # the one way to give a name that fails where it is taken
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if final.exists():
            return False
        made.replace(final)
    return True
