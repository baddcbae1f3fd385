"""The folders of jobs: made with their scripts before sbatch is asked, and taken away again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.run_folder.run_folder import RunFolder
from launcher.stages import execute
from launcher.submit.jobs import LINES, NEXT, Job, Submission


class Folders:
    """What was made for a submission."""

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._chain: RunFolder | None = None

    def make(self, submission: Submission) -> None:
        """Make all folders and write all scripts.

        Raises SettingsError, and has left nothing behind then. Touches the disk.
        """
        stages = submission.stages
        try:
            if stages is not None and not stages.is_resumed:
                self._chain = execute.make(stages)
            for job in submission.jobs:
                self._folder(job.logs)
                self._write(job.script, job.text)
                if job.lines is not None:
                    self._write(job.script.with_name(LINES), job.lines)
        except OSError as fault:
            self.take_away()
            reason = fault.strerror or str(fault)
            what = f"{fault.filename or submission.folder} cannot be written: {reason}"
            allowed = "a run folder that you may write to, and that all nodes share"
            raise SettingsError(
                [Diagnostic(what, value=str(submission.folder), allowed=allowed)]
            ) from fault
        except SettingsError:
            self.take_away()
            raise

    def note_next(self, job: Job, following: str) -> None:
        """Note which job waits for this one, lest another that goes on for it be passed over.

        Touches the disk. Raises SettingsError.
        """
        path = job.script.with_name(NEXT)
        try:
            self._write(path, f"{following}\n")
        except OSError as fault:
            raise SettingsError(
                [Diagnostic(f"{path} cannot be written: {fault.strerror}")]
            ) from fault

    def take_away(self) -> None:
        """Leave things as they were; what others have laid there meanwhile stays. Touches disk."""
        for path in reversed(self._made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        if self._chain is not None:
            self._chain.discard()

    def _folder(self, path: Path) -> None:
        for one in [*reversed(path.parents), path]:
            if not one.exists():
                one.mkdir()
                self._made.append(one)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "it may not be written to", str(path))

    def _write(self, path: Path, text: str) -> None:
        if not path.exists():
            self._made.append(path)
        # An earlier job of this run may still be read: it is replaced, and never half there.
        unfinished = path.with_name(f".{path.name}.new")
        self._made.append(unfinished)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
