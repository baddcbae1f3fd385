"""The commands `run` and `resume`: train, or show the plan with --dry-run."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TextIO

from launcher.base import ending, exit_codes
from launcher.base.diagnostics import render
from launcher.config.command_line import CommandLine
from launcher.config.options import JSON
from launcher.config.provenance import STAGED_MODE, CliArgs
from launcher.config.selection import choose
from launcher.report.report import write_at_end
from launcher.run import failures, restart, startup
from launcher.run.execute import FinishedRun, execute_run
from launcher.run.failures import Kind, Report, failed
from launcher.run.prepare import (
    PreparedRun,
    first_line,
    plan_as_json,
    prepare_run,
    render_plan,
)
from launcher.run.restart import JobGeneration
from training.logging.outputs import discard
from training.logging.printable import printable
from training.logging.strict_json import encode

if TYPE_CHECKING:
    from launcher.stages.pipeline import Pipeline, PipelineStage


def main(command_line: CommandLine) -> int:
    """Train, or show the plan; the exit code. Raises SettingsError."""
    is_dry = "--dry-run" in command_line.flags
    generation = None if is_dry else restart.read_job_generation(command_line.out)
    if generation is None:
        return _train(command_line, None)
    try:
        return _train(command_line, generation)
    except BaseException as error:  # the job script needs an outcome for every end
        startup.finish_startup()
        report = failed(error, generation.rank)
        generation.end(report.kind, report.exit_code, report.text)
        raise


def _train(command_line: CommandLine, generation: JobGeneration | None) -> int:
    args = command_line.args if generation is None else generation.begin(command_line.args)
    ready = _prepare(args, command_line)
    is_left = ready.nothing_left is None if isinstance(ready, PreparedRun) else bool(ready.left)
    if generation is not None and is_left:
        generation.claim()
    if isinstance(ready, PreparedRun):
        return _run(ready, command_line.flags, generation)
    return _stages(ready, command_line.flags, generation)


def _prepare(args: CliArgs, command_line: CommandLine) -> PreparedRun | Pipeline:
    """The run, or all runs of a pipeline of stages. Raises SettingsError."""
    diagnostics = list(command_line.diagnostics)
    if args.resume is None and args.weights is None and choose(args).mode != STAGED_MODE:
        return prepare_run(args, command_line.out, diagnostics)
    from launcher.stages import pipeline

    return pipeline.prepare(args, command_line.out, diagnostics)


def _run(ready: PreparedRun, flags: Collection[str], generation: JobGeneration | None) -> int:
    as_json = JSON.flag in flags
    if ready.resolved.warnings and ready.is_rank_0:
        print_line(render(ready.resolved.warnings), sys.stderr)
    if "--dry-run" in flags:
        plan = f"{json.dumps(plan_as_json(ready), indent=2)}\n" if as_json else render_plan(ready)
        print(printable(plan), end="")
        return exit_codes.DONE
    if (left := ready.nothing_left) is not None:
        facts = {"exit_code": exit_codes.DONE, "folder": str(ready.folder), "error": None}
        if ready.is_rank_0:
            print_line(json.dumps({**facts, **left.outcome}, indent=2) if as_json else left.line)
        return _ended(generation, "ended", exit_codes.DONE, left.line)
    if ready.is_rank_0 and not as_json:
        print_line(first_line(ready))
    ending.leave("")
    finished = execute_run(
        ready,
        console=not as_json,
        show=print_report,
        continual=_train_continually,
        report=write_at_end,
    )
    if as_json and ready.is_rank_0:
        print_line(json.dumps(_result(finished), indent=2))
    elif line := _last_line(ready, finished):
        print_line(line)
    report = finished.report
    code = _ended(generation, report.kind, report.exit_code, report.text)
    if ready.place is not None and report.kind != "ended":
        failures.exit_now(code)
    return code


def _train_continually(*arguments: Any) -> Report:
    """launcher.continual.loop.train_continually, imported by the runs that need it."""
    from launcher.continual.loop import train_continually

    return train_continually(*arguments)


def _ended(generation: JobGeneration | None, kind: Kind, code: int, text: str) -> int:
    """Publish the outcome for the job script; the exit code of the process."""
    if generation is not None:
        generation.end(kind, code, text)
    return restart.process_exit_code(generation, kind, code)


def _stages(ready: Pipeline, flags: Collection[str], generation: JobGeneration | None) -> int:
    from launcher.stages import execute, summary

    as_json = JSON.flag in flags
    if ready.warnings:
        print_line(render(ready.warnings), sys.stderr)
    if "--dry-run" in flags:
        print(printable(summary.dry_run(ready, as_json)), end="")
        return exit_codes.DONE
    if not ready.left:
        print_line(
            encode(summary.nothing_left(ready), indent=2) if as_json else ready.resume_line or ""
        )
        return _ended(generation, "ended", exit_codes.DONE, "all stages are complete")

    def announce(stage: PipelineStage, begun: PreparedRun) -> None:
        if not as_json:
            print_line(f"{summary.title(ready, stage)}\n{first_line(begun)}")

    if ready.resume_line and not as_json:
        print_line(ready.resume_line)
    ending.leave("")
    ended = execute.execute(
        ready, console=not as_json, show=print_report, announce=announce, report=write_at_end
    )
    text = encode(summary.as_json(ended), indent=2) if as_json else summary.summary(ended)
    if text:
        print_line(text)
    return _ended(generation, ended.report.kind, ended.report.exit_code, ended.report.text)


def print_report(report: Report) -> None:
    """Print how a rank ended on stderr, with the traceback of an error of the program."""
    lines = [report.text, *([report.trace.rstrip()] if report.trace else [])]
    print_line("\n".join(lines), sys.stderr)


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Print `text` on `stream`, stdout by default; nothing once it can no longer be written."""
    stream = stream or sys.stdout
    try:
        print(printable(text), file=stream, flush=True)
    except OSError:
        discard(stream)


def _last_line(ready: PreparedRun, finished: FinishedRun) -> str:
    following = None
    is_done = finished.folder is not None and finished.report.exit_code == exit_codes.DONE
    if is_done and finished.folder and ready.resolved.settings.stages:
        from launcher.stages import summary

        following = summary.next_stage(ready.resolved, finished.folder)
    return following or finished.last_line


def _result(finished: FinishedRun) -> dict[str, object]:
    return {
        "exit_code": finished.report.exit_code,
        "folder": str(finished.folder) if finished.folder else None,
        "error": finished.report.text or None,
        **(finished.report.outcome or {}),
    }
