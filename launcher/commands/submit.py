"""The command `submit`: check a run, and submit it to Slurm."""

from __future__ import annotations

import shlex
import shutil
from textwrap import indent

from gearshift.launcher.base import disk
from gearshift.launcher.base.diagnostics import Diagnostic, program_line
from gearshift.launcher.base.redaction import redact
from gearshift.launcher.commands import output
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.resolve import fetch_data, fetch_weights
from gearshift.launcher.config.schema import AUTO, model_name
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.submit import allocation, job
from gearshift.launcher.submit.allocation import Allocation
from gearshift.slurm import sbatch


def main(command_line: CommandLine) -> int:
    """Check the run and submit its job; the exit code.

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
    decided = job.decide(command_line, requested, diagnostics)
    plan = decided.plan
    output.show_warnings(command_line, plan.resolved.warnings)
    if plan.nothing_left:
        content = {"folder": decided.folder, "jobs": []}
        return output.show(command_line, content, plan.line or "")

    lines = [plan.line] if plan.line else []
    job_id = None
    if is_dry:
        command = shlex.join(sbatch.command(decided.script, requested.passthrough))
        script = f"{decided.script}\n{indent(decided.text, '  ').rstrip()}"
        parts = [*lines, _title(plan, requested), script, f"commands\n  {command}"]
        text = "\n\n".join(parts)
    else:
        disk.check_writable(decided.folder, f"--out {decided.folder}")
        fetch_weights(plan.resolved.values)
        fetch_data(plan.resolved.values)
        job_id = job.submit(decided, requested.passthrough)
        log = decided.log(job_id)
        lines += [
            f"job      {job_id}  {_title(plan, requested)}",
            f"folder   {decided.folder}",
            f"log      {log}",
            f"follow   tail -F {shlex.quote(str(log))}",
            f"cancel   scancel {job_id}",
            f"resume   {program_line('submit', '--resume', decided.folder)}",
        ]
        text = "\n".join(lines)
    facts = {
        "id": job_id,
        "script": decided.script,
        "command": sbatch.command(decided.script, requested.passthrough),
        "text": decided.text,
        "log": decided.log(job_id or "%j"),
        "world_size": plan.resolved.batching.world_size,
    }
    content = {"folder": decided.folder, "jobs": [facts]}
    return output.show(command_line, content, text)


def _title(plan: RunPlan, requested: Allocation) -> str:
    """`language:small, mode fast, engine ddp, nodes 1-2, ranks per node 4`."""
    resolved = plan.resolved
    settings = resolved.settings
    engine = AUTO if "engine.name" in resolved.keys.auto else settings.engine.name
    return redact(
        f"{model_name(settings.model)}, mode {settings.mode}, engine {engine}, "
        f"nodes {requested.header['nodes']}, ranks per node {requested.ranks}"
    )
