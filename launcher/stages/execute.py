"""Execution of a pipeline, each stage in its own processes; and what is printed of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace

from gearshift.launcher.base import exit_codes, signals
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError
from gearshift.launcher.base.signals import Stopped
from gearshift.launcher.report.report import write_at_end
from gearshift.launcher.run import run_end
from gearshift.launcher.run.dry_run import plan_as_json, render_plan
from gearshift.launcher.run.execute import Show, execute_run, next_command
from gearshift.launcher.run.prepare import first_line
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.run_folder import RunFolder
from gearshift.launcher.stages.pipeline import Pipeline, save_result, save_stages
from gearshift.training.logging.quantities import duration, real, size


def train_stages(
    pipeline: Pipeline, console: bool, show: Show, announce: Callable[[str], None]
) -> RunEnd:
    """Create the folders and train the stages that are left; each gives its weights to the next.

    `show` as for `execute_run`; `announce` gets the title of each stage before it. The end is that
    of the stage that ran last. Where not even the first stage of a new pipeline trained anything,
    its folder is removed. Raises SettingsError.
    """
    new_folder = None if pipeline.is_resumed else make(pipeline)
    codes: dict[str, int] = {}
    end: RunEnd | None = None
    if pipeline.line:
        announce(pipeline.line)
    try:
        with signals.stoppable():
            for stage, ready in pipeline.left:
                announce(f"{pipeline.title(stage)}\n{first_line(ready)}")
                end = execute_run(ready, console, show)
                if end.wants_report and end.folder is not None:
                    write_at_end(end.folder)
                is_done = end.exit_code == exit_codes.DONE
                if is_done and end.signals:  # they came too late for this stage to stop
                    raise signals.exception(min(end.signals))
                codes[stage.name] = end.exit_code
                save_result(pipeline.folder, pipeline.folders, codes)
                if not is_done:
                    break
    except (KeyboardInterrupt, Stopped) as error:
        end = replace(run_end.of_error(error, 0), text="stopped between two stages")
        show(end)
    assert end is not None, "a pipeline with nothing left is not trained"
    end = replace(end, folder=None, wants_report=False)
    has_trained = any(run_folder.has_trained(stage.folder) for stage in pipeline.entries)
    if new_folder is not None and end.did_nothing and not has_trained:
        new_folder.discard()
        return end
    result = save_result(pipeline.folder, pipeline.folders, codes)
    if all(ready.resolved.settings.report.enabled for _, ready in pipeline.left):
        write_at_end(pipeline.folder)
    return replace(end, folder=pipeline.folder, pipeline=result)


def make(pipeline: Pipeline) -> RunFolder:
    """Create the folder of the pipeline, and in it the run folder of each stage.

    Touches the disk. Raises SettingsError, and has left nothing behind then.
    """
    made = run_folder.create_with(
        pipeline.folder, "", lambda folder: save_stages(folder, pipeline.entries)
    )
    try:
        for entry, ready in pipeline.left:
            run_folder.create(ready.resolved, entry.folder, "")
    except SettingsError:
        made.discard()
        raise
    return made


def dry_run(pipeline: Pipeline, for_machines: bool) -> str:
    """The plan of each stage that is left, for --dry-run."""
    if for_machines:
        stages = [{"name": entry.name, **plan_as_json(ready)} for entry, ready in pipeline.left]
        return json.dumps({"folder": str(pipeline.folder), "stages": stages}, indent=2) + "\n"
    parts = [f"{pipeline.title(stage)}\n\n{render_plan(ready)}" for stage, ready in pipeline.left]
    return "\n".join([f"{pipeline.line}\n", *parts] if pipeline.line else parts)


def summary(end: RunEnd) -> str:
    """One line per stage, then the run folder and the next command."""
    if end.folder is None:
        return ""
    stages = end.result["stages"]
    lines = []
    width = max(len(stage["name"]) for stage in stages)
    for stage in stages:
        facts = [stage["status"]]
        if stage["parameters"] is not None:
            facts.append(f"{stage['parameters']:,} parameters")
            peak = stage["peak_memory_bytes"]
            best = stage["best"]
            kind = "device" if peak.get("device") is not None else "host"
            facts += (
                [f"peak {size(peak[kind])} on the {kind}"] if peak.get(kind) is not None else []
            )
            facts += (
                [f"{best['metric']} {real(best['value'])} at step {best['step']}"] if best else []
            )
            facts.append(duration(stage["wall_s"]))
        lines.append(f"  {stage['name']:<{width}}  {', '.join(facts)}")
    where = f"run folder {end.folder}"
    last = end.folder / stages[-1]["folder"]
    if end.exit_code != exit_codes.DONE:
        failed = [stage["folder"] for stage in stages if stage["status"] == "failed"]
        where += f"; log: {end.folder / failed[0] / run_folder.LOG}" if failed else ""
        where += f"; resume: {PROGRAM} resume {shlex.quote(str(end.folder))}"
    elif following := next_command(last, end.folder):
        where += f"; {following}"
    elif checkpoint_search.newest_step(last) is not None:
        command = f"{PROGRAM} export {shlex.quote(str(last))} --format safetensors"
        where += f"; export the model: {command}"
    return "\n".join([*lines, where])
