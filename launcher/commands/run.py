"""The commands `run` and `resume`: train, or show the plan with --dry-run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment, exit_codes, signals
from gearshift.launcher.base.diagnostics import Diagnostic, render, say
from gearshift.launcher.base.diagnostics import as_json as diagnostics_as_json
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.provenance import STAGED_MODE, CliArgs
from gearshift.launcher.config.selection import choose
from gearshift.launcher.run import execute, run_end
from gearshift.launcher.run.execute import Show
from gearshift.launcher.run.prepare import first_line, prepare_run
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder.run_plan import Pipeline
from gearshift.slurm.environment import JOB_VARIABLE
from gearshift.training.logging.encoding import encode, printable

if TYPE_CHECKING:
    from gearshift.launcher.run.job_generation import JobGeneration


def main(command_line: CommandLine) -> int:
    """Train, or show the plan; the exit code. Raises SettingsError."""
    if "--dry-run" in command_line.values:
        return _dry_run(command_line)
    generation = None
    if JOB_VARIABLE in environment.variables():
        from gearshift.launcher.run.job_generation import read_job_generation

        generation = read_job_generation(command_line.out)
    try:
        return _main(command_line, generation)
    except BaseException as error:
        if generation is None:
            raise
        # The job script needs an outcome for every end.
        signals.end_start()
        from gearshift.launcher.run.run_error import of_error

        end = of_error(error, generation.rank)
        generation.end(end.kind, end.exit_code, end.text)
        raise


def prepare(args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic]) -> Pipeline:
    """The run, or all runs of a pipeline of stages; starts nothing. Raises SettingsError."""
    if args.resume is None and args.weights is None and choose(args).mode != STAGED_MODE:
        return Pipeline.of(prepare_run(args, out, diagnostics))
    from gearshift.launcher.stages import pipeline

    return pipeline.prepare(args, out, diagnostics)


def train(ready: Pipeline, console: bool, show: Show) -> RunEnd:
    """Train one run, its stages, or on data as it arrives; and write the report of the run.

    `show` gets each failure. Raises SettingsError.
    """

    def announce(text: str) -> None:
        if console and ready.is_rank_0:
            say(text)

    if ready.is_staged:
        from gearshift.launcher.stages.execute import train_stages

        return train_stages(ready, console, show, announce)
    plan = ready.plan
    announce(first_line(plan))
    if plan.is_continual:
        from gearshift.launcher.continual.loop import train_continually

        end = execute.execute_run(plan, console, show, train_continually)
    else:
        end = execute.execute_run(plan, console, show)
    if end.wants_report and end.folder:
        from gearshift.launcher.report.report import write_at_end

        write_at_end(end.folder)
    return end


def write_missing_reports(ready: Pipeline) -> None:
    """Write the reports that could not be written when the runs of `ready` were completed."""
    from gearshift.launcher.report.report import write_missing

    write_missing([*ready.folders.values(), ready.folder])


def _dry_run(command_line: CommandLine) -> int:
    ready = _prepared(command_line, command_line.args)
    as_json = command_line.as_json
    from gearshift.launcher.config.fixes import as_commands

    complete = partial(as_commands, command_line)
    if ready.is_staged:
        from gearshift.launcher.stages import execute as stages

        text = stages.dry_run(ready, as_json, complete)
    else:
        from gearshift.launcher.run.dry_run import plan_as_json, render_plan

        plan = ready.plan
        if as_json:
            facts = plan_as_json(plan, complete(plan.resolved.warnings))
            text = f"{encode(facts, indent=2)}\n"
        else:
            text = render_plan(plan)
    print(printable(text), end="")
    return exit_codes.DONE


def _main(command_line: CommandLine, generation: JobGeneration | None) -> int:
    args = command_line.args if generation is None else generation.begin(command_line.args)
    ready = _prepared(command_line, args)
    as_json = command_line.as_json
    result = ready.nothing_left
    if result:
        line = ready.line or ""
        if ready.is_rank_0:
            write_missing_reports(ready)
            facts = {"exit_code": exit_codes.DONE, "error": None, **result}
            say(encode(facts, indent=2) if as_json else line)
        return generation.end("ended", exit_codes.DONE, line) if generation else exit_codes.DONE
    if generation:
        generation.claim()
    signals.leave("")
    end = train(ready, console=not as_json, show=partial(_print_end, command_line))
    code = end.exit_code
    if as_json and ready.is_rank_0:
        end = _with_commands(command_line, end)
        facts = {"exit_code": code, "folder": end.folder, "error": end.text or None, **end.result}
        if end.diagnostics:
            facts["diagnostics"] = diagnostics_as_json(end.diagnostics)
        say(encode(facts, indent=2))
    else:
        if ready.is_staged:
            from gearshift.launcher.stages import execute as stages

            line = stages.summary(end)
        else:
            line = execute.last_line(end)
        if line:
            say(line)
    if generation:
        code = generation.end(end.kind, code, end.text)
    if ready.launched and end.kind != "ended":
        run_end.exit_now(code)
    return code


def _prepared(command_line: CommandLine, args: CliArgs) -> Pipeline:
    """What `prepare` gives, after its warnings."""
    ready = prepare(args, command_line.out, command_line.diagnostics)
    if ready.warnings and ready.is_rank_0:
        from gearshift.launcher.commands import output

        output.show_warnings(command_line, ready.warnings)
    return ready


def _with_commands(command_line: CommandLine, end: RunEnd) -> RunEnd:
    """`end` with fixes of invalid input that run as they are."""
    if not end.diagnostics:
        return end
    from gearshift.launcher.config.fixes import as_commands

    diagnostics = as_commands(command_line, end.diagnostics)
    return replace(end, diagnostics=diagnostics, text=render(diagnostics))


def _print_end(command_line: CommandLine, end: RunEnd) -> None:
    """Print how a rank ended on stderr, with the traceback of an error of the program."""
    end = _with_commands(command_line, end)
    say("\n".join(filter(None, (end.text, end.trace.rstrip()))), sys.stderr)
