"""One rank of a run, from the first signal handler to its exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from launcher.base import exit_codes
from launcher.run import affinity, failures, job_spec, signals
from launcher.run.failures import Report, Stopped, exit_now
from launcher.run.job_spec import Job
from launcher.run.signals import handling

if TYPE_CHECKING:
    from training.callbacks.base import Outcome

Work = Callable[[Job], "Outcome"]
_STOPPERS = ("SIGTERM", "SIGUSR1")
_PARENT_CHECK_S = 1.0
ORPHAN_S = 60.0
"""How long a rank whose supervisor was killed may take to save and end."""


def worker() -> Work:
    """What a rank does; imports torch."""
    from launcher.run.worker import work

    return work


def run(job: Job, rank: int, load_work: Callable[[], Work] = worker) -> Report:
    """Do the rank's work in this process; its report, whatever happens."""
    try:
        with stoppable():
            affinity.pin_to_cores(job.resolved.settings, os.environ)
            return failures.ended(asdict(load_work()(job)), rank)
    # The border at a rank's top: every end, Ctrl-C included, becomes a report for the person.
    except BaseException as fault:
        return failures.failed(fault, rank)


@contextmanager
def stoppable() -> Iterator[None]:
    """While nothing listens to signals yet, a scheduler's signal raises Stopped."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signals.startup_signals() is not None
    ):
        yield
        return
    numbers = [getattr(signal, name) for name in _STOPPERS if hasattr(signal, name)]
    with handling(numbers, _stop):
        yield


def serve(folder: Path, load_work: Callable[[], Work] = worker) -> None:
    """Be one rank of the job that the supervisor described in `folder`.

    Leaves a report there. The exit code is 0 for every end that the ranks agreed on: the
    supervisor reads the agreed code from the report.
    """
    rank = int(os.environ["RANK"])
    # Not the parent of now: the supervisor may have been killed before this line was reached.
    _end_with_parent(int(os.environ.get(job_spec.SUPERVISOR, os.getppid())))
    try:
        told = job_spec.load(folder)
    except BaseException as fault:  # as in `run`
        ending = failures.failed(fault, rank)
    else:
        # Only one rank draws on the terminal.
        ending = run(replace(told, console=told.console and rank == 0), rank, load_work)
    ending.save(folder)
    # Also after a good end: threads of gloo now and then abort an interpreter that shuts down.
    exit_now(exit_codes.DONE if ending.kind == "ended" else ending.exit_code)


def _stop(number: int, frame: object) -> NoReturn:
    raise Stopped(signal.Signals(number).name)


def _end_with_parent(parent: int) -> None:
    """A supervisor that was killed leaves no rank behind: the rank is asked to save and end."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_S)
        os._exit(exit_codes.FAILURE)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
