"""Submits the jobs of a submission: all of them or none, with their folders and scripts."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

from launcher.base import disk, environment
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.run.prepare import least_room_bytes
from launcher.run_folder import run_folder
from launcher.stages import execute
from launcher.submit.allocation import Allocation
from launcher.submit.jobs import Submission
from slurm import queue, sbatch
from slurm.sbatch import SbatchError
from training.storage import atomic_write

NEXT = "next"
"""Next to the script of a stage: the id of the job that depends on it; for slurm/next.sh."""


MISSING = Diagnostic(
    "sbatch is not on PATH: this machine cannot submit jobs",
    where="PATH",
    allowed="a login node of a Slurm cluster",
    fix="run submit on a login node, or print the job script with  --dry-run",
)


def check_room(submission: Submission) -> None:
    """Check that the disk of each run folder has room for the weights of one checkpoint at least.

    Raises SettingsError.
    """
    for run in submission.runs:
        needed = least_room_bytes(run.begun.resolved)
        where = f"--out {run.folder}"
        disk.check_writable(run.folder, where, needed_bytes=needed)


def submit_all(submission: Submission, requested: Allocation) -> list[str]:
    """Make the folders and submit the jobs, each after the one before; their ids.

    Asks Slurm first whether they can ever start. Raises SettingsError; no file and no job is left
    behind then, nor after Ctrl-C.
    """
    ids: list[str] = []
    with ExitStack() as undo:
        try:
            for job in submission.jobs:
                sbatch.test(job.text, requested.passthrough, environment.variables())
            if submission.stages is not None:
                undo.callback(execute.make(submission.stages).discard)
            for job in submission.jobs:
                _make_folder(job.script.with_name("log"), undo)
                _write(job.script, job.text, undo)
                if job.lines is not None:
                    _write(job.script.with_name(run_folder.LINES), job.lines, undo)
            for job in submission.jobs:
                options = [*requested.passthrough, *(dependency(ids[-1]) if ids else [])]
                ids.append(sbatch.submit(job.script, options, environment.variables()))
                undo.callback(queue.cancel, ids[-1])
            for job, following in zip(submission.jobs, ids[1:], strict=False):
                _write(job.script.with_name(NEXT), f"{following}\n", undo)
        except SbatchError as error:
            raise SettingsError.of(f"Slurm rejected the job: {error}", where="sbatch") from error
        except OSError as error:
            message = f"cannot write {error.filename or submission.folder}: {error.strerror or error}"
            allowed = "a writable run folder that all nodes share"
            raise SettingsError.of(message, value=str(submission.folder), allowed=allowed) from error
        undo.pop_all()
    return ids


def dependency(job_id: str) -> list[str]:
    """The sbatch options of a job that starts only after job `job_id` succeeds."""
    return [f"--dependency=afterok:{job_id}", "--kill-on-invalid-dep=yes"]


def _make_folder(path: Path, undo: ExitStack) -> None:
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            folder.mkdir()
            undo.callback(_remove, folder)


def _write(path: Path, text: str, undo: ExitStack) -> None:
    if not path.exists():
        undo.callback(_remove, path)
    atomic_write(path, text.encode())  # a running job of this run may still read the earlier script


def _remove(path: Path) -> None:
    """Remove a file, or a folder that others have not written to. Disk access."""
    with suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink()
