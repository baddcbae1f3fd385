"""Restart of ranks after a failure or out of memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace

from launcher.base import library_warnings
from launcher.config import batching
from launcher.config.provenance import Resolved
from launcher.run import failures
from launcher.run.failures import RankReport
from launcher.run.job_spec import Job
from launcher.run_folder import run_folder
from launcher.run_folder.resume import ResumeRequest
from training.logging.events import append_event
from training.resources import cgroup
from training.resources.oom import MAX_HALVINGS
from training.storage import Storage

_RESTARTED = ("failed", "killed", "peer lost")
"""Ends that a restart may avoid. Invalid input and a loss that is not finite would come again."""
Show = Callable[[RankReport], None]
Attempt = Callable[[Job, Show, set[int]], RankReport]
"""Runs a job once: shows a failure at once, and collects the signals sent to its ranks."""


def supervise(
    job: Job, threads: int, show: Show, module: str = "launcher.run.rank", forwarded: set[int] | None = None
) -> RankReport:
    """Run `job` in processes of their own; see `repeat`. Each computes with `threads` threads."""
    from launcher.run import supervisor

    def attempt(job: Job, show: Show, forwarded: set[int]) -> RankReport:
        with library_warnings.logged(job.log):
            return supervisor.supervise(job, threads, show, module, forwarded)

    return repeat(job, attempt, show, forwarded)


def repeat(job: Job, attempt: Attempt, show: Show, forwarded: set[int] | None = None) -> RankReport:
    """Run `job` to its end, with up to engine.max_restarts restarts after failures.

    After out of memory it restarts with half the micro-batch and the same global batch, three
    times at most: a rank cannot retry a step while its peers wait in a collective, and not at all
    if the kernel killed it. Each restart resumes from the newest checkpoint and is printed and
    logged. Returns the report of the last attempt. `forwarded` collects the signals sent to the
    ranks. Touches the disk.
    """
    forwarded = set() if forwarded is None else forwarded
    max_restarts = job.resolved.settings.engine.max_restarts
    first = FirstAttempt(job)
    resolved, again, restarts, reductions = job.resolved, job, 0, 0
    while True:
        report = _run_once(attempt, again, show, forwarded)
        if forwarded or not first.folder.is_dir():
            return report
        is_reducible = report.kind == "out of memory" and reductions < MAX_HALVINGS
        smaller = reduced(resolved, report.micro_batch) if is_reducible else None
        if smaller is not None:
            reductions, resolved = reductions + 1, smaller
            line = f"restart with micro-batches of {resolved.batching.micro_batch}"
            again, step = first.again(resolved)
            facts = {"rank": report.rank, "text": report.text, "from_step": step}
            numbers = resolved.batching
            facts |= {"micro_batch": numbers.micro_batch, "accumulation": numbers.accumulation}
            append_event(Storage(first.folder), "out_of_memory", step or 0, facts)
        elif report.kind in _RESTARTED and restarts < max_restarts:
            restarts += 1
            line = f"restart {restarts} of {max_restarts}"
            again, step = first.again(resolved)
        else:
            return report
        line += " from the beginning" if step is None else f" from step {step}"
        run_folder.append_log(first.folder, f"{report.text}\n{report.trace}\n{line}")
        if job.console:
            print(line, file=sys.stderr, flush=True)
        del report  # its cause holds the model, if it was trained here
        gc.collect()


def reduced(resolved: Resolved, micro_batch: int | None = None) -> Resolved | None:
    """The settings with half the micro-batch and the same global batch; None: it cannot be smaller.

    `micro_batch` is the one that ran out of memory; None: that of the settings, which a run may
    have reduced itself. settings.yaml and origins.json of the restarted run show the new numbers
    and their origin.
    """
    numbers = resolved.batching
    used = micro_batch or numbers.micro_batch
    accumulation = numbers.micro_batch * numbers.accumulation // used
    failed = replace(numbers, micro_batch=used, accumulation=accumulation)
    smaller = next(batching.halvings(failed), None)
    reason = "reduced after out of memory"
    return None if smaller is None else resolved.with_batching(smaller, reason)


def _run_once(attempt: Attempt, job: Job, show: Show, forwarded: set[int]) -> RankReport:
    """Run `job` once, and tell failures from kills by the kernel: out of memory."""
    before = cgroup.oom_kills() or 0

    def classify(report: RankReport) -> RankReport:
        kills = (cgroup.oom_kills() or 0) - before
        return failures.out_of_memory(report, kills, job.resolved.batching)

    return classify(attempt(job, lambda report: show(classify(report)), forwarded))


class FirstAttempt:
    """The job as it was started first, and its checkpoints at that time."""

    def __init__(self, job: Job) -> None:
        assert job.folder is not None, "a supervised job has a run folder"
        self._job = job
        self.folder = job.folder
        self._newest = self._step = None
        if job.resume is not None:  # a new run has no checkpoints to look for
            from launcher.run_folder.checkpoint_search import newest_step

            self._newest, self._step = newest_step(job.folder), job.resume.step
            if self._step is None:
                self._step = newest_step(job.resume.source)

    def again(self, resolved: Resolved) -> tuple[Job, int | None]:
        """The job of a restart, and the step to resume from; None: from the beginning.

        --reset applies again unless a checkpoint was saved since, which contains its effect.
        """
        from launcher.run_folder.checkpoint_search import newest_step

        job = replace(self._job, resolved=resolved)
        saved = newest_step(self.folder)
        is_new = saved is not None and saved != self._newest and saved > (self._step or 0)
        if is_new or self._job.resume is None:
            return replace(job, resume=ResumeRequest(self.folder)), saved
        return job, self._step
