"""The command `submit`: check a run, and submit it to Slurm."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from itertools import zip_longest
from textwrap import indent

from gearshift.launcher.base import disk
from gearshift.launcher.base.diagnostics import Diagnostic, counted
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.resolve import fetch_data, fetch_weights
from gearshift.launcher.config.schema import AUTO, model_name
from gearshift.launcher.run.prepare import least_room_bytes
from gearshift.launcher.submit import allocation, jobs
from gearshift.launcher.submit.allocation import Allocation
from gearshift.launcher.submit.jobs import SlurmJob, Submission
from gearshift.slurm import sbatch
from gearshift.training.callbacks.base import Json


def main(command_line: CommandLine) -> int:
    """Check the runs and submit their jobs; the exit code.

    Raises SettingsError; no file and no job is left behind then.
    """
    is_dry = "--dry-run" in command_line.values
    diagnostics = list(command_line.diagnostics)
    if not is_dry and shutil.which("sbatch") is None:
        diagnostics.append(
            Diagnostic(
                "sbatch is not on PATH: this machine cannot submit jobs",
                where="PATH",
                allowed="a login node of a cluster",
                fix="--dry-run",
            )
        )
    for argument in command_line.argv:
        if redact(argument) != argument:
            diagnostics.append(
                Diagnostic(
                    "credentials in an argument would be stored in the job file",
                    where=f"command line: {redact(argument)}",
                    allowed="${NAME}, a variable of the job's environment; "
                    "or a file given by --config",
                )
            )
    requested = allocation.read(command_line, diagnostics)
    submission = jobs.decide(command_line, requested, diagnostics)
    output.show_warnings(command_line, submission.warnings)

    plans = [run.plan for run in submission.runs]
    ids: Sequence[str] = ()
    if all(plan.nothing_left for plan in plans):
        lines = [plan.line or "" for plan in plans] or [submission.line or ""]
        nothing = {"folder": submission.folder, "jobs": []}
        return output.show(command_line, nothing, "\n".join(lines))
    if not is_dry:
        for run in submission.runs:
            needed = least_room_bytes(run.plan.resolved)
            disk.check_writable(run.folder, f"--out {run.folder}", needed_bytes=needed)
        for plan in plans:
            fetch_weights(plan.resolved.values)
            fetch_data(plan.resolved.values)
        ids = jobs.submit_all(submission, requested)
    content = _as_json(submission, requested, ids)
    lines = [submission.line] if submission.line else []
    for job, facts in zip(submission.jobs, content["jobs"], strict=True):
        lines += _lines(job, facts, requested)
    return output.show(command_line, content, "\n".join(lines))


def _lines(job: SlurmJob, facts: Json, requested: Allocation) -> list[str]:
    """A job with its script before it is submitted, or else with its log."""
    title = _title(job, requested)
    if facts["id"]:
        return [
            f"job      {facts['id']}  {title}",
            f"folder   {job.folder}",
            f"log      {facts['runs'][0]['log']}",
        ]
    return [
        f"job      {title}",
        f"folder   {job.folder}",
        f"command  {shlex.join(facts['command'])}",
        indent(job.text, "  "),
        indent(job.lines or "", "  "),
    ]


def _as_json(submission: Submission, requested: Allocation, ids: Sequence[str] = ()) -> Json:
    """The submission for programs; without `ids` the jobs are not submitted."""
    content = []
    for number, (job, job_id) in enumerate(zip_longest(submission.jobs, ids)):
        runs = []
        for run in job.runs:
            facts = {
                "name": run.name or None,
                "folder": run.folder,
                "log": job.log(job_id or "%j", run),
                "world_size": run.plan.resolved.batching.world_size,
            }
            runs.append(facts)
        facts = {
            "id": job_id,
            "script": job.script,
            "command": _command(job, requested, number),
            "text": job.text,
            "lines": job.lines,
            "runs": runs,
        }
        content.append(facts)
    return {"folder": submission.folder, "jobs": content}


def _command(job: SlurmJob, requested: Allocation, number: int) -> list[str]:
    options = jobs.dependency("ID") if number else []
    return sbatch.command(job.script, [*requested.passthrough, *options])


def _title(job: SlurmJob, requested: Allocation) -> str:
    """`language:small, mode fast, engine ddp, nodes 1-2, ranks per node 4, 1 run`."""
    resolved = job.runs[0].plan.resolved
    settings = resolved.settings
    engine = AUTO if "engine.name" in resolved.keys.auto else settings.engine.name
    return redact(
        f"{model_name(settings.model)}, mode {settings.mode}, engine {engine}, "
        f"nodes {requested.header['nodes']}, ranks per node {requested.ranks}, "
        f"{counted(len(job.runs), 'run')}"
    )
