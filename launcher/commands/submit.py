"""Queues runs on a Slurm cluster, once all that can be checked here has been checked."""

from __future__ import annotations

import json
import sys

from launcher.base import exit_codes
from launcher.base.diagnostics import render
from launcher.cli.options import JSON
from launcher.cli.parser import Request
from launcher.submit import asked, following, jobs, queueing, telling
from launcher.submit.jobs import Submission
from launcher.submit.options import WAIT


def main(request: Request) -> int:
    """Check, queue, tell, and follow where that is asked for; the exit code.

    Raises SettingsError, and has left nothing behind then.
    """
    is_dry, for_machines = "--dry-run" in request.flags, JSON.flag in request.flags
    diagnostics = [*request.diagnostics, *([] if is_dry else queueing.no_sbatch())]
    wanted = asked.read(request, diagnostics)
    submission = jobs.decide(request, wanted, diagnostics)
    if submission.warnings:
        print(render(submission.warnings), file=sys.stderr)
    if (line := _nothing_left(submission)) is not None:
        told = {"folder": str(submission.folder), "jobs": []}
        print(json.dumps(told, indent=2) if for_machines else line)
        return exit_codes.DONE
    if is_dry:
        told = telling.as_json(submission, wanted)
        print(json.dumps(told, indent=2) if for_machines else telling.dry_run(submission, wanted))
        return exit_codes.DONE
    queueing.test(submission, wanted)
    ids = queueing.queue_all(submission, wanted)
    if for_machines:
        print(json.dumps(telling.as_json(submission, wanted, ids), indent=2), flush=True)
    else:
        print(telling.queued(submission, wanted, ids), flush=True)
    if WAIT.flag not in request.flags:
        return exit_codes.DONE
    try:
        return following.follow(submission, ids, sys.stderr if for_machines else sys.stdout)
    except KeyboardInterrupt:
        print(telling.stopped_following(ids), file=sys.stderr)
        return exit_codes.INTERRUPTED


def _nothing_left(submission: Submission) -> str | None:
    """What is told where all runs were completed already; None: there is something to do."""
    if not submission.jobs:
        return "\n".join(submission.lines)
    lefts = [run.begun.nothing_left for job in submission.jobs for run in job.runs]
    told = [left.line for left in lefts if left is not None]
    return "\n".join(told) if len(told) == len(lefts) else None
