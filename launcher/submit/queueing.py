"""From a submission that is decided to jobs that Slurm has taken: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.submit.asked import Asked
from launcher.submit.folders import Folders
from launcher.submit.jobs import Submission
from slurm import queue, sbatch
from slurm.sbatch import SbatchError


def no_sbatch() -> list[Diagnostic]:
    """What is wrong where there is no Slurm."""
    if sbatch.is_there():
        return []
    return [
        Diagnostic(
            "sbatch is not in PATH: from this machine nothing can be queued",
            where="PATH",
            allowed="a login node of a Slurm cluster",
            fix="log in there, or show the script with  --dry-run",
        )
    ]


def test(submission: Submission, asked: Asked) -> None:
    """Ask Slurm whether the jobs could ever start. Raises SettingsError with its refusal."""
    for job in submission.jobs:
        try:
            sbatch.test(job.text, asked.behind, os.environ)
        except SbatchError as error:
            raise _refused(error) from error


def queue_all(submission: Submission, asked: Asked) -> list[str]:
    """Make the folders and submit the jobs, each behind the one before; their ids.

    Raises SettingsError, and has left nothing behind then, in no folder and in no queue.
    """
    folders = Folders()
    folders.make(submission)
    ids: list[str] = []
    try:
        for job in submission.jobs:
            options = [*asked.behind, *_behind(ids)]
            ids.append(sbatch.submit(job.script, options, os.environ))
        for job, following in zip(submission.jobs, ids[1:], strict=False):
            folders.note_next(job, following)
    except BaseException as error:  # Ctrl-C, too, leaves half a chain otherwise
        for one in reversed(ids):
            queue.cancel(one)
        folders.take_away()
        if isinstance(error, SbatchError):
            raise _refused(error) from error
        raise
    return ids


def behind(before: str) -> list[str]:
    """The options of a job that begins when another has come to its end, or never."""
    return [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"]


def _behind(ids: Sequence[str]) -> list[str]:
    return behind(ids[-1]) if ids else []


def _refused(error: SbatchError) -> SettingsError:
    what, _, more = str(error).partition("\n")
    text = "\n".join(filter(None, (f"Slurm does not take the job: {what}", more)))
    return SettingsError([Diagnostic(text, where="sbatch")])
