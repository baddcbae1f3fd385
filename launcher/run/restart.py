"""Starts the ranks again where a fault ended them, or where memory ran out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from launcher.config import batching
from launcher.config.provenance import Batching, Resolved
from launcher.resume import find
from launcher.resume.resume_point import Resume
from launcher.run import supervisor
from launcher.run.failures import Report
from launcher.run.job_spec import Job
from launcher.run_folder import run_folder
from training.logging.events import append
from training.resources.oom import HALVINGS

_AGAIN = ("fault", "killed", "peer lost")
"""How ranks end that may do better the next time. Words stay wrong; a signal wants an end; and
what the ranks agreed on, such as a loss that is not finite, would come again."""


def is_supervised(resolved: Resolved) -> bool:
    """Whether ranks run in processes of their own, watched by this one."""
    settings = resolved.settings
    return resolved.nproc > 1 or settings.engine.max_restarts > 0 or settings.continual.enabled


def supervise(
    job: Job,
    threads: int,
    tell: Callable[[Report], None],
    module: str = "launcher.run.rank",
    signals: set[int] | None = None,
) -> Report:
    """Run `job` to its end, with as many restarts after faults as its settings allow.

    Where memory ran out, the ranks begin again with half the micro-batch and the same global batch,
    three times at most: within a collective, where its peers are, a rank cannot take a step again.
    The report is that of the last try. Each restart goes on from the newest checkpoint, and is
    told on stderr and in the log. `signals` collects those that were handed on. Touches the disk.
    """
    signals = set() if signals is None else signals
    most = job.resolved.settings.engine.max_restarts
    first = First(job)
    tried, diagnostics, halved = job, 0, 0
    while True:
        ending = supervisor.supervise(tried, threads, tell, module, signals)
        if signals or not first.folder.is_dir():
            return ending
        smaller = batching.halved(tried.resolved.batching)
        if ending.kind == "out of memory" and halved < HALVINGS and smaller is not None:
            halved += 1
            tried, step = first.again(smaller)
            line = f"restart with micro-batches of {smaller.micro_batch}"
            _tell_event(first.folder, ending, smaller, step)
        elif ending.kind in _AGAIN and diagnostics < most:
            diagnostics += 1
            tried, step = first.again(tried.resolved.batching)
            line = f"restart {diagnostics} of {most}"
        else:
            return ending
        where = "from the beginning" if step is None else f"from step {step}"
        _say(job, f"{line} {where}", ending)


def _tell_event(folder: Path, ending: Report, smaller: Batching, step: int | None) -> None:
    facts = {
        "rank": ending.rank,
        "text": ending.text,
        "micro_batch": smaller.micro_batch,
        "accumulation": smaller.accumulation,
        "from_step": step,
    }
    append(folder, "out_of_memory", step or 0, facts)


class First:
    """What the first try of a job began with."""

    def __init__(self, job: Job) -> None:
        assert job.folder is not None, "a supervised job has its folder"
        self._job = job
        self.folder = job.folder
        self._newest = find.newest_step(job.folder)
        told = job.resume
        self._step = None
        if told is not None:
            self._step = find.newest_step(told.source) if told.step is None else told.step

    def again(self, numbers: Batching) -> tuple[Job, int | None]:
        """The job of a restart, and the step it goes on from; None: from the beginning.

        What began anew at first does so again, unless a checkpoint was saved since: that has it.
        """
        job = replace(self._job, resolved=replace(self._job.resolved, batching=numbers))
        saved = find.newest_step(self.folder)
        is_new = saved is not None and saved != self._newest and saved > (self._step or 0)
        if is_new or self._job.resume is None:
            return replace(job, resume=Resume(self.folder)), saved
        return job, self._step


def _say(job: Job, line: str, ending: Report) -> None:
    assert job.folder is not None
    run_folder.log(job.folder, f"{ending.text}\n{ending.trace}\n{line}")
    if job.console:
        print(line, file=sys.stderr, flush=True)
