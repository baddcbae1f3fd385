"""What the generations of a job began with, and what they come to: requeues, lost steps, time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.run_folder import claim, run_folder
from slurm.environment import Generation
from training.logging import events


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
        "lost_steps": max(0, max(trained, default=0) - step) if claim.began(run, generation) else 0,
    }
    claim.note(run, claim.BEGAN, generation, facts)
    if generation.number or generation.restart:
        told = {
            "job": generation.job,
            "generation": generation.number,
            "restart": generation.restart,
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
        }
        events.append(run, "requeued", step, {**told, **facts}, door=door)


def account(run: Path, generation: Generation) -> Mapping[str, Any]:
    """What result.json tells of the job at its end: requeues, lost steps, share of time that stays.

    The share is the seconds of steps that were kept, by metrics.jsonl, to those since the first
    generation began: waiting in the queue, starting, evaluating and saving are not in it. Reads the
    disk.
    """
    of_job = [one for one in claim.lines(run) if one["job"] == generation.job]
    begun = claim.began(run, generation)
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
