"""What a person and machines are told of jobs: before they are queued, and once they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from launcher.base.diagnostics import PROGRAM, counted
from launcher.base.redaction import redact
from launcher.config.schema import model_name
from launcher.submit import options, queueing
from launcher.submit.asked import Asked
from launcher.submit.jobs import Job, Run, Submission
from slurm import sbatch

_SHOWN = 3
"""Runs of an array that are shown one by one."""


def dry_run(submission: Submission, asked: Asked) -> str:
    """The scripts, and what would be typed."""
    parts = list(submission.lines)
    commands: list[str] = []
    for number, job in enumerate(submission.jobs):
        parts.append(f"{_title(job, asked)}\n\n{job.script}\n{_indented(job.text)}")
        if job.lines is not None:
            parts.append(f"{job.script.with_name('lines.txt')}\n{_indented(job.lines)}")
        commands += _typed(job, asked, number)
    return "\n\n".join([*parts, "\n".join(["what would be typed", *commands])])


def queued(submission: Submission, asked: Asked, ids: Sequence[str]) -> str:
    """Which jobs there are, where their logs are, how to follow and end them, and to go on."""
    lines = list(submission.lines)
    for job_id, job in zip(ids, submission.jobs, strict=True):
        lines.append(f"job      {job_id}  {_title(job, asked)}")
        lines += [f"folder   {_named(run)}{run.folder}" for run in job.runs[:_SHOWN]]
        lines += [f"log      {_named(run)}{job.log(job_id, run)}" for run in job.runs[:_SHOWN]]
        if len(job.runs) > _SHOWN:
            lines.append(f"         and {len(job.runs) - _SHOWN} more below {job.folder}")
    first, run = submission.jobs[0], submission.jobs[0].runs[0]
    lines.append(f"follow   tail -F {shlex.quote(str(first.log(ids[0], run)))}")
    lines.append(f"stop     scancel {' '.join(reversed(ids))}")
    lines.append(f"go on    {PROGRAM} {again(submission)}")
    return "\n".join(lines)


def again(submission: Submission) -> str:
    """The words that let what was ended go on in a new job."""
    is_array = submission.jobs[0].lines is not None
    folder = submission.jobs[0].runs[0].folder if is_array else submission.folder
    return f"submit --resume {shlex.quote(str(folder))}"


def as_json(submission: Submission, asked: Asked, ids: Sequence[str] = ()) -> dict[str, Any]:
    """The same for machines; without `ids` the jobs are not queued."""
    return {
        "folder": str(submission.folder),
        "jobs": [
            _job(job, asked, number, ids[number] if ids else None)
            for number, job in enumerate(submission.jobs)
        ],
    }


def _job(job: Job, asked: Asked, number: int, job_id: str | None) -> dict[str, Any]:
    return {
        "id": job_id,
        "script": str(job.script),
        "command": sbatch.command(job.script, _options(asked, number)),
        "text": job.text,
        "lines": job.lines,
        "runs": [
            {
                "name": run.name or None,
                "folder": str(run.folder),
                "log": str(job.log(job_id or "%j", run)),
                "world_size": run.begun.resolved.batching.world_size,
            }
            for run in job.runs
        ],
    }


def _typed(job: Job, asked: Asked, number: int) -> Iterator[str]:
    if number == 0:
        yield f"  {shlex.join(sbatch.test_command(asked.behind))} < {shlex.quote(str(job.script))}"
    yield f"  {shlex.join(sbatch.command(job.script, _options(asked, number)))}"


def _options(asked: Asked, number: int) -> list[str]:
    return [*asked.behind, *(queueing.behind("ID") if number else [])]


def _title(job: Job, asked: Asked) -> str:
    """`language:small, mode fast, engine ddp on 2 nodes × 4 processes`."""
    settings = job.runs[0].begun.resolved.settings
    nodes = asked.nodes
    count = counted(nodes[-1], "node")
    if len(nodes) > 1:
        count = f"{nodes[0]} to {count}"
    launched = " by torchrun" if asked.is_torchrun else ""
    stage = f", stage {job.runs[0].name}" if job.runs[0].name and job.lines is None else ""
    many = f"{counted(len(job.runs), 'run')} of " if job.lines is not None else ""
    return redact(
        f"{many}{model_name(settings.model)}, mode {settings.mode}{stage}, engine "
        f"{settings.engine.name} on {count} × {counted(asked.ranks, 'process')}{launched}"
    )


def _named(run: Run) -> str:
    return f"{run.name}: " if run.name else ""


def _indented(text: str) -> str:
    return "".join(f"  {line}".rstrip() + "\n" for line in text.splitlines()).rstrip("\n")


def stopped_following(ids: Sequence[str]) -> str:
    """What Ctrl-C comes to while jobs are followed."""
    jobs = " ".join(ids)
    return f"not followed any more ({options.WAIT.flag}); the job goes on; stop it: scancel {jobs}"
