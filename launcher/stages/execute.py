"""Execution of a pipeline: one stage after the other, each in its own processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.base.signals import Stopped
from launcher.run import failures, rank
from launcher.run.execute import WriteReport, execute_run
from launcher.run.failures import Report
from launcher.run.prepare import PreparedRun
from launcher.run_folder import run_folder
from launcher.run_folder.run_folder import RunFolder
from launcher.stages import record
from launcher.stages.pipeline import Pipeline, PipelineStage


@dataclass(frozen=True)
class PipelineResult:
    """The end of a pipeline."""

    report: Report
    """Report of the stage that ran last."""
    folder: Path | None
    """None: the folder was removed, since nothing was trained."""
    result: Mapping[str, Any]
    """result.json of the pipeline."""


def execute(
    pipeline: Pipeline,
    console: bool,
    show: Callable[[Report], None],
    announce: Callable[[PipelineStage, PreparedRun], None],
    report: WriteReport | None = None,
) -> PipelineResult:
    """Create the folders and train the stages that are left; each gives its weights to the next.

    `show` and `report` as for `execute_run`; `announce` is called before each stage. Where not even
    the first stage of a new chain trained anything, its folder is removed. Raises SettingsError.
    """
    made = None if pipeline.is_resumed else make(pipeline)
    codes: dict[str, int] = {}
    ending: Report | None = None
    try:
        with rank.stoppable():
            for entry, ready in pipeline.left:
                announce(entry, ready)
                ending = _train(ready, console, show, report)
                codes[entry.name] = ending.exit_code
                record.write(pipeline.record, codes)
                if ending.exit_code != exit_codes.DONE:
                    break
    except (KeyboardInterrupt, Stopped) as diagnostic:
        ending = replace(failures.failed(diagnostic, 0), text="stopped between two stages")
        show(ending)
    assert ending is not None, "a chain with nothing left is not carried out"
    writes_report = all(ready.resolved.settings.report.enabled for _, ready in pipeline.left)
    nothing_done = ending.exit_code == exit_codes.INVALID_INPUT or ending.kind == "stopped"
    if (
        made is not None
        and nothing_done
        and not any(run_folder.has_trained(entry.folder) for entry in pipeline.entries)
    ):
        made.discard()
        return PipelineResult(ending, None, {})
    result = record.write(pipeline.record, codes)
    if report is not None and writes_report:
        report(pipeline.folder)
    return PipelineResult(ending, pipeline.folder, result)


def _train(
    ready: PreparedRun,
    console: bool,
    show: Callable[[Report], None],
    report: WriteReport | None,
) -> Report:
    """Train one stage.

    Raises Stopped, or KeyboardInterrupt, where a signal came too late for this stage to stop.
    """
    signals: set[int] = set()
    ending = execute_run(ready, console, show, forwarded=signals, report=report).report
    if ending.exit_code == exit_codes.DONE and signals:
        if signal.SIGINT in signals:
            raise KeyboardInterrupt
        raise Stopped(signal.Signals(min(signals)).name)
    return ending


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
