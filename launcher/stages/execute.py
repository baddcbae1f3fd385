"""Execution of a pipeline: one stage after the other, each in its own processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

from launcher.base import exit_codes, signals
from launcher.base.diagnostics import SettingsError
from launcher.base.signals import Stopped
from launcher.report.report import write_at_end
from launcher.run import run_end
from launcher.run.execute import execute_run
from launcher.run.prepare import first_line
from launcher.run.restart import Show
from launcher.run.run_end import RunEnd
from launcher.run_folder import run_folder
from launcher.run_folder.run_folder import RunFolder
from launcher.stages import record
from launcher.stages.pipeline import Pipeline


def train_stages(pipeline: Pipeline, console: bool, show: Show, announce: Callable[[str], None]) -> RunEnd:
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
                    if signal.SIGINT in end.signals:
                        raise KeyboardInterrupt
                    raise Stopped(signal.Signals(min(end.signals)).name)
                codes[stage.name] = end.exit_code
                record.write(pipeline.folder, pipeline.folders, codes)
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
    result = record.write(pipeline.folder, pipeline.folders, codes)
    if all(ready.resolved.settings.report.enabled for _, ready in pipeline.left):
        write_at_end(pipeline.folder)
    return replace(end, folder=pipeline.folder, pipeline=result)


def make(pipeline: Pipeline) -> RunFolder:
    """Create the folder of the pipeline, and in it the run folder of each stage.

    Touches the disk. Raises SettingsError, and has left nothing behind then.
    """
    names = [entry.name for entry in pipeline.entries]
    made = run_folder.create_with(pipeline.folder, "", lambda folder: record.save(folder, names))
    try:
        for entry, ready in pipeline.left:
            run_folder.create(ready.resolved, entry.folder, "")
    except SettingsError:
        made.discard()
        raise
    return made
