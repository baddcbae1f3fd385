"""Starts the ranks again where a fault of the program ended them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from launcher import run_folder
from launcher.going_on import resume
from launcher.going_on.resumption import Resume
from launcher.processes import supervise as supervisor
from launcher.processes.handover import Job
from launcher.processes.report import Report
from launcher.settings.resolved import Resolved

_AGAIN = ("fault", "peer lost")
"""How ranks end that may do better the next time. Words stay wrong; a signal wants an end; and
what the ranks agreed on, such as a loss that is not finite, would come again."""


def is_supervised(resolved: Resolved) -> bool:
    """Whether ranks run in processes of their own, watched by this one."""
    return resolved.nproc > 1 or resolved.settings.engine.max_restarts > 0


def supervise(
    job: Job, threads: int, tell: Callable[[Report], None], module: str = "launcher.processes.rank"
) -> Report:
    """Run `job` to its end, with as many restarts after faults as its settings allow.

    The report is that of the last try. Each restart goes on from the newest checkpoint, and is
    told on stderr and in the log. Touches the disk.
    """
    most = job.resolved.settings.engine.max_restarts
    first = First(job)
    tried = job
    for number in range(1, most + 1):
        signals: set[int] = set()
        ending = supervisor.supervise(tried, threads, tell, module, signals)
        if ending.kind not in _AGAIN or signals or not first.folder.is_dir():
            return ending
        tried, step = first.again()
        where = "from the beginning" if step is None else f"from step {step}"
        _say(job, f"restart {number} of {most} {where}", ending)
    return supervisor.supervise(tried, threads, tell, module)


class First:
    """What the first try of a job began with."""

    def __init__(self, job: Job) -> None:
        assert job.folder is not None, "a supervised job has its folder"
        self._job = job
        self.folder = job.folder
        self._newest = resume.newest_step(job.folder)
        told = job.resume
        self._step = None
        if told is not None:
            self._step = resume.newest_step(told.source) if told.step is None else told.step

    def again(self) -> tuple[Job, int | None]:
        """The job of a restart, and the step it goes on from; None: from the beginning.

        What began anew at first does so again, unless a checkpoint was saved since: that has it.
        """
        saved = resume.newest_step(self.folder)
        is_new = saved is not None and saved != self._newest and saved > (self._step or 0)
        if is_new or self._job.resume is None:
            return replace(self._job, resume=Resume(self.folder)), saved
        return self._job, self._step


def _say(job: Job, line: str, ending: Report) -> None:
    assert job.folder is not None
    run_folder.log(job.folder, f"{ending.text}\n{ending.trace}\n{line}")
    if job.console:
        print(line, file=sys.stderr, flush=True)
