"""How a process ends that cannot end in good order."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from launcher.base import exit_codes
from launcher.run import failures
from launcher.run.job_spec import Job
from launcher.run_folder import run_folder


def end_hard(code: int) -> NoReturn:
    """Leave at once, so that peers see the connection close and never wait for a time-out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def give_up(job: Job, rank: int, reason: str) -> NoReturn:
    """End this rank at once and from any thread, blamed for what its main thread hangs in.

    `reason` reads on after `rank 1 on HOST`: such as `waited 600 s for its data`. The supervisor
    shows it before what the others say; where there is none, it is told here.
    """
    ending = failures.given_up(reason, rank)
    if job.reports is not None:
        ending.save(job.reports)
    else:
        print(f"{ending.text}\n{ending.trace}", file=sys.stderr)
        if job.folder is not None:
            run_folder.log(job.folder, f"{ending.text}\n{ending.trace}")
    end_hard(exit_codes.FAILURE)
