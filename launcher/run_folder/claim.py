"""Which job a run folder belongs to, and what each of its generations began with."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slurm.environment import SLURM_FOLDER, Generation
from training.logging.strict_json import encode_bytes
from training.storage import LineFile, storage_errors

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
