"""Follows jobs through requeues and successors to their end, by what they write and Slurm says."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from launcher.base import exit_codes
from launcher.submit.jobs import SLURM, Job, Run, Submission
from launcher.submit.records import Records
from slurm import queue
from slurm.queue import QueueError, State
from training.logging.console_text import render_row

POLL_S = 1.0
"""Between two looks at the files of a run."""
_ASK_AT_MOST_S = 15.0
"""Between two questions to the controller, which all users share, while nothing changes."""
_LATE_S = 30.0
"""How long an outcome may be on its way to us through a file system."""
_GOES_ON = re.compile(r"^gearshift: goes on in job ([0-9]+(?:_[0-9]+)?)\b", re.MULTILINE)
"""What slurm/next.sh says of a job that goes on for one which may not be requeued."""
_SPEAKS = ("COMPLETED", "CANCELLED")
"""States in which a job that has run has an outcome."""
_GOES_ON_AS = ("again", "COMPLETED")
_BROKEN = ("FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
_WORD = re.compile(r"([a-z]+) ([0-9]+)\n")


@dataclass
class Course:
    """One run that is followed."""

    job: Job
    run: Run
    training: str
    """Its name on the cluster: the id of its first job."""
    slurm_job: str = ""
    """The job of Slurm that it lives in now."""
    code: int | None = None
    """Its exit code; None: it has not ended."""
    state: State | None = None
    asked_at: float = -math.inf
    told: str = ""
    """What was said last of how its job stands."""
    pause_s: float = POLL_S
    ended_at: float | None = None
    records: Records = field(init=False)

    def __post_init__(self) -> None:
        self.slurm_job = self.slurm_job or self.training
        self.records = Records(self.run.folder)

    @property
    def outcome(self) -> tuple[str, int] | None:
        """How its last life ended, by its own word; None: it has not said. Reads the disk."""
        prefix = f"outcome.{self.training}."
        found = (self.run.folder / SLURM).glob(f"{prefix}*")
        numbers = [path.name[len(prefix) :] for path in found]
        newest = max((int(one) for one in numbers if one.isdigit()), default=None)
        if newest is None:
            return None
        match = _WORD.match(_text(self.run.folder / SLURM / f"{prefix}{newest}"))
        return (match[1], int(match[2])) if match else None


def follow(
    submission: Submission,
    ids: Sequence[str],
    stream: TextIO,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> int:
    """Tell on `stream` what becomes of the jobs, until all have ended; the exit code of the worst.

    That of the run: 0 done, 1 failed, 2 wrong words, 75 ended by Slurm after saving.
    """
    courses = [
        Course(job, run, f"{job_id}_{run.index}" if run.index is not None else job_id)
        for job_id, job in zip(ids, submission.jobs, strict=True)
        for run in job.runs
    ]
    while True:
        for course in courses:
            if course.code is None:
                name = f"{course.run.name}: " if len(courses) > 1 else ""
                for text in _news(course, now()):
                    print("\n".join(name + line for line in text.splitlines()), file=stream)
        stream.flush()
        if all(course.code is not None for course in courses):
            return _worst([course.code or 0 for course in courses])
        sleep(POLL_S)


def _news(course: Course, at: float) -> Iterator[str]:
    """What is to be said of one run now."""
    told = None
    if at >= course.asked_at + course.pause_s or course.ended_at is not None:
        told = _ask(course, at)
    yield from course.records.news()
    if course.records.is_over:
        course.pause_s = POLL_S
    if told is not None and told != course.told:
        course.told = told
        yield told
    if course.state is None or course.state.is_ended:
        if course.ended_at is not None:
            yield from _end(course, at)
    else:
        course.ended_at = None


def _ask(course: Course, at: float) -> str | None:
    """Ask Slurm how the job stands; what is to be said of it."""
    course.asked_at = at
    try:
        state = queue.look(course.slurm_job)
    except QueueError as error:
        course.pause_s = _ASK_AT_MOST_S
        return render_row("job", f"{course.slurm_job}: {error}")
    is_news = state != course.state
    course.pause_s = POLL_S if is_news else min(2 * course.pause_s, _ASK_AT_MOST_S)
    if (state is None or state.is_ended) and course.ended_at is None:
        course.ended_at = at
    course.state = state
    return (
        render_row("job", _told(course.slurm_job, state)) if is_news and state is not None else None
    )


def _told(job: str, state: State) -> str:
    words = [f"{job} {state.name.lower()}"]
    if state.nodes and not state.is_ended:
        words.append(f"on {state.nodes}")
    if state.reason and not state.is_ended:
        words.append(f"({state.reason})")
    if state.restarts:
        words.append(f"requeued {state.restarts}×")
    return " ".join(words)


def _end(course: Course, at: float) -> Iterator[str]:
    """What the end of a job of Slurm comes to: another job, the end of the run, or patience."""
    log = course.job.logs / f"{course.slurm_job}.out"
    if found := _GOES_ON.findall(_text(log)):
        course.slurm_job, course.state, course.ended_at = found[-1], None, None
        course.pause_s = POLL_S
        yield render_row("job", f"goes on in job {course.slurm_job}")
        return
    outcome = course.outcome
    is_late = course.ended_at is not None and at >= course.ended_at + _LATE_S
    ended = course.state.name if course.state is not None else ""
    if course.state is not None and not course.state.nodes and ended == "CANCELLED":
        course.code = exit_codes.RUN_AGAIN
        yield render_row("ended", "before it began")
        return
    # A file system may be late with the outcome, or with the word that another job goes on.
    is_expected = ended in _SPEAKS and (outcome is None or (outcome[0], ended) == _GOES_ON_AS)
    if is_expected and not is_late:
        return
    yield from course.records.news()
    word, code = outcome or ("", exit_codes.FAILURE)
    # The word of an earlier life, if the last one died without any.
    course.code = exit_codes.FAILURE if word == "again" and ended in _BROKEN else code
    if outcome is None:
        yield render_row("ended", f"without an outcome; what happened: {log}")
    elif word != "done":
        yield render_row("ended", f"{word}, exit code {course.code}; what happened: {log}")


def _worst(codes: Sequence[int]) -> int:
    """A failure goes before what can be run again, and that before what is done."""
    order = (
        exit_codes.FAILURE,
        exit_codes.INVALID_INPUT,
        exit_codes.INTERRUPTED,
        exit_codes.RUN_AGAIN,
    )
    return next((code for code in order if code in codes), max(codes))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
