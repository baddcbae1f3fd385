"""Trains; or, as a dry run, shows what would be done."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection

from launcher.base import exit_codes
from launcher.base.diagnostics import render
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.continual.loop import train_continually
from launcher.run import failures, restart, signals
from launcher.run.execute import FinishedRun, execute_run
from launcher.run.failures import Kind, Report, failed
from launcher.run.prepare import Plan, PreparedRun, first_line, plan_as_json, render_plan
from launcher.run.restart import JobGeneration
from launcher.stages import execute, pipeline
from launcher.stages import summary as telling
from launcher.stages.pipeline import Pipeline, PipelineStage
from training.logging.strict_json import encode


def main(command_line: CommandLine) -> int:
    """Decide, show, and train; the exit code. Raises SettingsError."""
    if (
        "--dry-run" in command_line.flags
        or (lived := restart.read_job_generation(command_line.out)) is None
    ):
        return _train(command_line, None)
    try:
        return _train(command_line, lived)
    except BaseException as fault:  # however it ends, the job script is told
        signals.finish_startup()
        told = failed(fault, lived.rank)
        lived.end(told.kind, told.exit_code, told.text)
        raise


def _train(command_line: CommandLine, lived: JobGeneration | None) -> int:
    words = command_line.args if lived is None else lived.begin(command_line.args)
    ready = pipeline.prepare(words, command_line.out, list(command_line.diagnostics))
    is_left = bool(ready.left) if isinstance(ready, Pipeline) else ready.nothing_left is None
    if lived is not None and is_left:
        lived.claim()
    if isinstance(ready, Pipeline):
        return _stages(ready, command_line.flags, lived)
    return _run(ready, command_line.flags, lived)


def _run(ready: PreparedRun, flags: Collection[str], lived: JobGeneration | None) -> int:
    """Train what one run comes to."""
    for_machines = JSON.flag in flags
    if ready.resolved.warnings and ready.is_rank_0:
        print(render(ready.resolved.warnings), file=sys.stderr)
    if "--dry-run" in flags:
        print(_dry_run(ready.plan, for_machines), end="")
        return exit_codes.DONE
    if (left := ready.nothing_left) is not None:
        told = {"exit_code": exit_codes.DONE, "folder": str(ready.folder), "error": None}
        if ready.is_rank_0:
            print(json.dumps({**told, **left.outcome}, indent=2) if for_machines else left.line)
        return _ended(lived, "ended", exit_codes.DONE, left.line)
    if ready.is_rank_0 and not for_machines:
        print(first_line(ready.plan), flush=True)
    finished = execute_run(ready, console=not for_machines, tell=tell, continual=train_continually)
    if for_machines and ready.is_rank_0:
        print(json.dumps(_result(finished), indent=2))
    elif line := _last_line(ready, finished):
        print(line)
    report = finished.report
    code = _ended(lived, report.kind, report.exit_code, report.text)
    if ready.place is not None and report.kind != "ended":
        failures.exit_now(code)
    return code


def _ended(lived: JobGeneration | None, kind: Kind, code: int, text: str) -> int:
    """The exit code of the process, once the job script can know how it ended."""
    if lived is not None:
        lived.end(kind, code, text)
    return restart.process_exit_code(lived, kind, code)


def _stages(ready: Pipeline, flags: Collection[str], lived: JobGeneration | None) -> int:
    """Train what is left of a chain of stages."""
    for_machines = JSON.flag in flags
    if ready.warnings:
        print(render(ready.warnings), file=sys.stderr)
    if "--dry-run" in flags:
        print(telling.dry_run(ready, for_machines), end="")
        return exit_codes.DONE
    if not ready.left:
        print(encode(telling.nothing_left(ready), indent=2) if for_machines else ready.resume_line)
        return _ended(lived, "ended", exit_codes.DONE, "nothing is left to do")

    def announce(link: PipelineStage, begun: PreparedRun) -> None:
        if not for_machines:
            print(f"{telling.title(ready, link)}\n{first_line(begun.plan)}", flush=True)

    if ready.resume_line and not for_machines:
        print(ready.resume_line)
    ended = execute.execute(ready, console=not for_machines, tell=tell, announce=announce)
    told = encode(telling.as_json(ended), indent=2) if for_machines else telling.summary(ended)
    if told:
        print(told)
    return _ended(lived, ended.report.kind, ended.report.exit_code, ended.report.text)


def tell(report: Report) -> None:
    """Say on stderr how a rank ended, with its traceback where it is a fault of the program."""
    sys.stdout.flush()
    print(report.text, file=sys.stderr)
    if report.trace:
        print(report.trace.rstrip(), file=sys.stderr)
    sys.stderr.flush()


def _last_line(ready: PreparedRun, finished: FinishedRun) -> str:
    """Where the run folder is, and what to type next."""
    following = None
    if finished.folder is not None and finished.report.exit_code == exit_codes.DONE:
        following = telling.next_stage(ready.resolved, finished.folder)
    return following or finished.last_line(_is_embedded(ready))


def _is_embedded(ready: PreparedRun) -> bool:
    """Whether no data was named, where data has a path at all."""
    path = getattr(ready.resolved.settings.data, "path", None)
    return isinstance(path, str) and path.startswith("embedded:")


def _dry_run(decided: Plan, for_machines: bool) -> str:
    if for_machines:
        return json.dumps(plan_as_json(decided), indent=2) + "\n"
    return render_plan(decided)


def _result(finished: FinishedRun) -> dict[str, object]:
    return {
        "exit_code": finished.report.exit_code,
        "folder": str(finished.folder) if finished.folder else None,
        "error": finished.report.text or None,
        **(finished.report.outcome or {}),
    }
