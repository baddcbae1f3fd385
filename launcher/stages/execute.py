"""Execution of a pipeline, each stage in its own processes; and what is printed of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, program_line
from gearshift.launcher.base.signals import Stopped
from gearshift.launcher.report.report import write_at_end
from gearshift.launcher.run import run_error
from gearshift.launcher.run.dry_run import plan_as_json, render_plan
from gearshift.launcher.run.execute import Show, execute_run, next_command
from gearshift.launcher.run.prepare import first_line
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_folder import RunFolder
from gearshift.launcher.run_folder.run_plan import Pipeline
from gearshift.launcher.stages.pipeline import save_result, save_stages
from gearshift.training.logging.console_text import render_best
from gearshift.training.logging.encoding import duration, encode


def train_stages(
    pipeline: Pipeline, console: bool, show: Show, announce: Callable[[str], None]
) -> RunEnd:
    """Create the folders and train the stages that are left; each gives its weights to the next.

    `show` as for `execute_run`; `announce` gets the title of each stage before it. The end is that
    of the stage that ran last. Where not even the first stage of a new pipeline trained anything,
    its folder is removed. Raises SettingsError.
    """
    new_folder = None if pipeline.is_resumed else _make(pipeline)
    codes: dict[str, int] = {}
    end: RunEnd | None = None
    if pipeline.line:
        announce(pipeline.line)
    try:
        with signals.stoppable():
            for stage, plan in pipeline.left:
                announce(f"{pipeline.title(stage)}\n{first_line(plan)}")
                end = execute_run(plan, console, show)
                if end.wants_report and end.folder:
                    write_at_end(end.folder)
                is_done = end.exit_code == exit_codes.DONE
                if is_done and end.signals:  # they came too late for this stage to stop
                    raise signals.exception(min(end.signals))
                # After each stage, so that a kill between two leaves a true result.
                codes[stage.name] = end.exit_code
                save_result(pipeline.folder, pipeline.folders, codes)
                if not is_done:
                    break
    except (KeyboardInterrupt, Stopped) as error:
        end = replace(run_error.of_error(error, 0), text="stopped between two stages")
        show(end)
    assert end, "a pipeline with nothing left is not trained"
    # From here on it is the end of the pipeline, not of its last stage.
    end = replace(end, folder=None, wants_report=False)
    has_trained = any(run_folder.has_trained(stage.folder) for stage in pipeline.entries)
    if new_folder and end.did_nothing and not has_trained:
        new_folder.discard()
        return end
    result = save_result(pipeline.folder, pipeline.folders, codes)
    if all(plan.resolved.settings.report.enabled for _, plan in pipeline.left):
        write_at_end(pipeline.folder)
    return replace(end, folder=pipeline.folder, pipeline=result)


def _make(pipeline: Pipeline) -> RunFolder:
    """Create the folder of the pipeline, and in it the run folder of each stage.

    Touches the disk. Raises SettingsError, and has left nothing behind then.
    """

    def write(folder: Path) -> None:
        save_stages(folder, pipeline.entries)

    folder = run_folder.create_with(pipeline.folder, "", write)
    try:
        for entry, plan in pipeline.left:
            run_folder.create(plan.resolved, entry.folder, "")
    except SettingsError:
        folder.discard()
        raise
    return folder


def dry_run(
    pipeline: Pipeline,
    for_machines: bool,
    complete: Callable[[Sequence[Diagnostic]], list[Diagnostic]],
) -> str:
    """The plan of each stage that is left, for --dry-run; `complete` makes fixes commands."""
    if for_machines:
        stages = []
        for entry, plan in pipeline.left:
            facts = plan_as_json(plan, complete(plan.resolved.warnings))
            stages.append({"name": entry.name, **facts})
        return encode({"folder": pipeline.folder, "stages": stages}, indent=2) + "\n"
    parts = [f"{pipeline.line}\n"] if pipeline.line else []
    for stage, plan in pipeline.left:
        parts.append(f"{pipeline.title(stage)}\n\n{render_plan(plan)}")
    return "\n".join(parts)


def summary(end: RunEnd) -> str:
    """One line per stage, then the run folder and the next command. Reads the last stage."""
    if not end.folder:
        return ""
    stages = end.result["stages"]
    lines = []
    for stage in stages:
        facts = [
            stage["status"],
            stage["best"] and render_best(stage["best"]),
            stage["wall_s"] and duration(stage["wall_s"]),
        ]
        lines.append(f"  {stage['name']}: {', '.join(filter(None, facts))}")

    following: str | None = f"resume: {program_line('resume', end.folder)}"
    if end.exit_code == exit_codes.DONE:
        following = next_command(end.folder / stages[-1]["folder"])
    parts = filter(None, [f"run folder {end.folder}", following])
    return "\n".join([*lines, "; ".join(parts)])
