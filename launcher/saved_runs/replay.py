"""Replays steps of a run in new processes and a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.config.provenance import Resolved
from launcher.run import experience
from launcher.run.job_spec import Job
from launcher.run_folder.checkpoint_search import ResumeRequest
from launcher.saved_runs.rerun import Rerun, rerun
from launcher.saved_runs.verify import Interval


@contextmanager
def replay(interval: Interval, run: Path, resolved: Resolved) -> Iterator[Rerun]:
    """Replay the steps of `interval`; the run folder `run` is only read. See rerun.

    Raises SettingsError.
    """

    def job(source: Path, folder: Path) -> Job:
        step = None if interval.source is None else interval.start
        resume = ResumeRequest(source, step=step, reset=interval.reset, until=interval.end)
        spec = experience.spec_at(run, interval.start, interval.end)
        return Job(resolved, folder, console=False, resume=resume, experience=spec)

    with rerun(resolved, run, interval.source, interval.start, job) as finished:
        yield finished
