"""Submits the jobs of a submission: all of them or none, with their folders and scripts."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from launcher.base import disk, environment
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.run.prepare import least_room_bytes
from launcher.run_folder import run_folder
from launcher.run_folder.run_folder import RunFolder
from launcher.submit.allocation import Allocation
from launcher.submit.jobs import NEXT, SlurmJob, Submission
from slurm import queue, sbatch
from slurm.sbatch import SbatchError


def missing_sbatch() -> list[Diagnostic]:
    """An error if this machine has no sbatch."""
    if sbatch.is_available():
        return []
    return [
        Diagnostic(
            "sbatch is not on PATH: this machine cannot submit jobs",
            where="PATH",
            allowed="a login node of a Slurm cluster",
            fix="run submit on a login node, or print the job script with  --dry-run",
        )
    ]


def check_room(submission: Submission) -> None:
    """Check that the disk of each run folder has room for the weights of one checkpoint at least.

    Raises SettingsError.
    """
    for run in (run for job in submission.jobs for run in job.runs):
        needed = least_room_bytes(run.begun.resolved)
        where = f"--out {run.folder}"
        disk.check_writable(run.folder, where, noun="run folder", needed_bytes=needed)


def test(submission: Submission, requested: Allocation) -> None:
    """Ask Slurm whether the jobs can ever start. Raises SettingsError with Slurm's answer."""
    for job in submission.jobs:
        try:
            sbatch.test(job.text, requested.passthrough, environment.variables())
        except SbatchError as error:
            raise _rejected(error) from error


def submit_all(submission: Submission, requested: Allocation) -> list[str]:
    """Make the folders and submit the jobs, each after the one before; their ids.

    Raises SettingsError; no file and no job is left behind then.
    """
    files = _Files()
    files.make(submission)
    ids: list[str] = []
    try:
        for job in submission.jobs:
            options = [*requested.passthrough, *(dependency(ids[-1]) if ids else [])]
            ids.append(sbatch.submit(job.script, options, environment.variables()))
        for job, following in zip(submission.jobs, ids[1:], strict=False):
            files.write_next(job, following)
    except BaseException as error:  # including Ctrl-C, which would leave some jobs submitted
        for job_id in reversed(ids):
            queue.cancel(job_id)
        files.remove()
        if isinstance(error, SbatchError):
            raise _rejected(error) from error
        raise
    return ids


def dependency(job_id: str) -> list[str]:
    """The sbatch options of a job that starts only after job `job_id` succeeds."""
    return [f"--dependency=afterok:{job_id}", "--kill-on-invalid-dep=yes"]


def _rejected(error: SbatchError) -> SettingsError:
    message, _, more = str(error).partition("\n")
    text = "\n".join(filter(None, (f"Slurm rejected the job: {message}", more)))
    return SettingsError.of(text, where="sbatch")


class _Files:
    """The folders and files of a submission, which can be removed again."""

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._folder_of_stages: RunFolder | None = None

    def make(self, submission: Submission) -> None:
        """Make all folders and write all scripts.

        Raises SettingsError; no file is left behind then. Disk access.
        """
        try:
            if submission.make_folder is not None:
                self._folder_of_stages = submission.make_folder()
            for job in submission.jobs:
                self._folder(job.logs)
                self._write(job.script, job.text)
                if job.lines is not None:
                    self._write(job.script.with_name(run_folder.LINES), job.lines)
        except OSError as error:
            self.remove()
            reason = error.strerror or str(error)
            message = f"cannot write {error.filename or submission.folder}: {reason}"
            allowed = "a writable run folder that all nodes share"
            raise SettingsError.of(
                message, value=str(submission.folder), allowed=allowed
            ) from error
        except SettingsError:
            self.remove()
            raise

    def write_next(self, job: SlurmJob, following: str) -> None:
        """Write the id of the job that depends on `job`; slurm/next.sh updates its dependency.

        Raises SettingsError. Disk access.
        """
        path = job.script.with_name(NEXT)
        try:
            self._write(path, f"{following}\n")
        except OSError as error:
            raise SettingsError.of(f"cannot write {path}: {error.strerror}") from error

    def remove(self) -> None:
        """Remove what was made, and keep folders that others have written to. Disk access."""
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        if self._folder_of_stages is not None:
            self._folder_of_stages.discard()

    def _folder(self, path: Path) -> None:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir()
                self._made.append(folder)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "permission denied", str(path))

    def _write(self, path: Path, text: str) -> None:
        if not path.exists():
            self._made.append(path)
        # Atomic: a running job of this run may still read the earlier script.
        unfinished = path.with_name(f".{path.name}.new")
        self._made.append(unfinished)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
