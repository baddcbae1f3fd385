"""Follows submitted runs through requeues and successor jobs, by their files and by Slurm."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from launcher.base import exit_codes
from launcher.run_folder.records import INVALID_LINE, RunLines, known_fields
from launcher.submit.jobs import SLURM, SlurmJob, Submission, SubmittedRun
from slurm import queue
from slurm.queue import JobState, QueueError
from training.callbacks.base import EvalResult
from training.logging import console_text
from training.logging.console_text import render_row
from training.logging.metrics import step_metrics
from training.logging.printable import printable
from training.logging.progress import Position
from training.train_plan import TrainPlan

POLL_S = 1.0
"""Between two reads of a run's files."""
_QUERY_AT_MOST_S = 15.0
"""Between two queries of the controller, which all users share, while nothing changes."""
_LATE_S = 30.0
"""How long a shared file system may take to show an outcome."""
_SUCCESSOR = re.compile(r"^gearshift: continues as job ([0-9]+(?:_[0-9]+)?)\b", re.MULTILINE)
"""The line of slurm/next.sh about a successor of a job that cannot be requeued."""
_CRASHED = ("FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
_OUTCOME = re.compile(r"([a-z]+) ([0-9]+)\n")


class _RunOutput:
    """The console output of a run, rendered from its metrics and events."""

    def __init__(self, folder: Path) -> None:
        self._lines = RunLines(folder)
        self.is_stopped = False
        """Whether the last event says that the run stopped."""
        self._end_step = 0
        self._units = "tokens"

    def new_lines(self) -> Iterator[str]:
        """The console lines since the last call. Reads the disk."""
        for line in self._lines.new():
            try:
                text = self._render(line)
            except INVALID_LINE:
                continue
            if text:
                yield text

    def _render(self, line: Mapping[str, Any]) -> str | None:
        kind, facts = line["kind"], line.get("facts", {})
        self.is_stopped = kind == "stopped"
        if kind == "train":
            metrics = step_metrics(line)
            left = self._end_step - metrics.step
            # A lower bound: without the time of evaluations and checkpoints.
            remaining = metrics.step_time_s * left if left >= 0 else None
            position = Position(metrics.step, self._end_step, 0.0, remaining, left > 0, metrics)
            return console_text.render_step(metrics, position, self._units)
        if kind == "started":
            train_plan = TrainPlan(**known_fields(TrainPlan, facts))
            self._end_step, self._units = train_plan.end_step, train_plan.units
            before = f", {train_plan.first_step} done before" if train_plan.first_step else ""
            return render_row("run", f"{train_plan.end_step} steps{before}")
        if kind == "resumed":
            return console_text.render_resumed(facts)
        if kind == "evaluated":
            result = EvalResult(**known_fields(EvalResult, facts))
            return console_text.render_evaluation(result, self._end_step)
        if kind == "saved":
            folder = f"checkpoints/{facts['folder']}"
            return console_text.render_saved(folder, facts["step"], self._end_step)
        if kind == "stopped":
            reason = f"; {facts['reason']}" if facts["reason"] else ""
            return console_text.render_end(str(facts["status"]), f"{facts['steps']} steps{reason}")
        urgent = console_text.render_urgent(kind, facts)
        return None if urgent is None else render_row("warning", urgent)


@dataclass
class Followed:
    """One run that is followed."""

    job: SlurmJob
    run: SubmittedRun
    first_job: str
    """The id of its first Slurm job, which names its outcomes."""
    slurm_job: str = ""
    """The id of its current Slurm job."""
    code: int | None = None
    """Its exit code; None: it has not ended."""
    state: JobState | None = None
    queried_at: float = -math.inf
    printed: str = ""
    """The last printed line about the state of its job."""
    pause_s: float = POLL_S
    ended_at: float | None = None
    output: _RunOutput = field(init=False)

    def __post_init__(self) -> None:
        self.slurm_job = self.slurm_job or self.first_job
        self.output = _RunOutput(self.run.folder)

    @property
    def outcome(self) -> tuple[str, int] | None:
        """The outcome of its last generation that wrote one; None: none did. Reads the disk."""
        prefix = f"outcome.{self.first_job}."
        outcomes = (self.run.folder / SLURM).glob(f"{prefix}*")
        generations = [path.name[len(prefix) :] for path in outcomes]
        newest = max((int(number) for number in generations if number.isdigit()), default=None)
        if newest is None:
            return None
        match = _OUTCOME.match(_text(self.run.folder / SLURM / f"{prefix}{newest}"))
        return (match[1], int(match[2])) if match else None


def follow(
    submission: Submission,
    ids: Sequence[str],
    stream: TextIO,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Print the progress of the jobs on `stream` until all have ended; the worst exit code.

    0 done, 1 failed, 2 wrong arguments or settings, 75 ended by Slurm after saving.
    """
    runs = [
        Followed(job, run, f"{job_id}_{run.index}" if run.index is not None else job_id)
        for job_id, job in zip(ids, submission.jobs, strict=True)
        for run in job.runs
    ]
    while True:
        for followed in runs:
            if followed.code is None:
                name = f"{followed.run.name}: " if len(runs) > 1 else ""
                for text in _new_lines(followed, now()):
                    lines = (name + line for line in printable(text).splitlines())
                    print("\n".join(lines), file=stream)
        stream.flush()
        if all(followed.code is not None for followed in runs):
            # A failure comes before what can be resumed, and that before success.
            codes = [followed.code or 0 for followed in runs]
            before = (exit_codes.FAILURE, exit_codes.INVALID_INPUT, exit_codes.INTERRUPTED)
            return next((code for code in before if code in codes), max(codes))
        sleep(POLL_S)


def _new_lines(followed: Followed, at: float) -> Iterator[str]:
    line = None
    if at >= followed.queried_at + followed.pause_s or followed.ended_at is not None:
        line = _query(followed, at)
    yield from followed.output.new_lines()
    if followed.output.is_stopped:
        followed.pause_s = POLL_S
    if line is not None and line != followed.printed:
        followed.printed = line
        yield line
    if followed.state is None or followed.state.is_ended:
        if followed.ended_at is not None:
            yield from _end(followed, at)
    else:
        followed.ended_at = None


def _query(followed: Followed, at: float) -> str | None:
    """Query the state of the job; a line about it if it has changed."""
    followed.queried_at = at
    try:
        state = queue.look_up(followed.slurm_job)
    except QueueError as error:
        followed.pause_s = _QUERY_AT_MOST_S
        return render_row("job", f"{followed.slurm_job}: {error}")
    has_changed = state != followed.state
    followed.pause_s = POLL_S if has_changed else min(2 * followed.pause_s, _QUERY_AT_MOST_S)
    if (state is None or state.is_ended) and followed.ended_at is None:
        followed.ended_at = at
    followed.state = state
    if not has_changed or state is None:
        return None
    parts = [f"{followed.slurm_job} {state.name.lower()}"]
    if state.nodes and not state.is_ended:
        parts.append(f"on {state.nodes}")
    if state.reason and not state.is_ended:
        parts.append(f"({state.reason})")
    if state.restarts:
        parts.append(f"requeued {state.restarts}×")
    return render_row("job", " ".join(parts))


def _end(followed: Followed, at: float) -> Iterator[str]:
    """Decide what the end of a Slurm job means: a successor, the end of the run, or wait."""
    log = followed.job.logs / f"{followed.slurm_job}.out"
    if successors := _SUCCESSOR.findall(_text(log)):
        followed.slurm_job, followed.state, followed.ended_at = successors[-1], None, None
        followed.pause_s = POLL_S
        yield render_row("job", f"continues as job {followed.slurm_job}")
        return
    outcome = followed.outcome
    is_late = followed.ended_at is not None and at >= followed.ended_at + _LATE_S
    state = followed.state.name if followed.state is not None else ""
    if followed.state is not None and not followed.state.nodes and state == "CANCELLED":
        followed.code = exit_codes.RUN_AGAIN
        yield render_row("ended", "before it started")
        return
    # A shared file system may be late with the outcome, or with the line about a successor.
    continues = outcome is None or (outcome[0], state) == ("again", "COMPLETED")
    if state in ("COMPLETED", "CANCELLED") and continues and not is_late:
        return
    yield from followed.output.new_lines()
    kind, code = outcome or ("", exit_codes.FAILURE)
    # The outcome of an earlier generation, if the last one crashed without an outcome.
    followed.code = exit_codes.FAILURE if kind == "again" and state in _CRASHED else code
    if outcome is None:
        yield render_row("ended", f"without an outcome; see {log}")
    elif kind != "done":
        yield render_row("ended", f"{kind}, exit code {followed.code}; see {log}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
