"""The trackers of a run, and what they may know of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import program_line
from gearshift.launcher.base.redaction import redact, redact_values, redact_variables
from gearshift.launcher.config.schema import Settings
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.training.callbacks.base import Callback, Emit, RunInfo
from gearshift.training.logging.console_reporter import PlainOutput
from gearshift.training.logging.console_text import render_row
from gearshift.training.trackers.follow import Run
from gearshift.training.trackers.process import Trackers


def build(job: RunPlan, settings: Settings, folder: Path, info: RunInfo, emit: Emit) -> Callback:
    """The trackers of rank 0."""

    def clean(text: str) -> str:
        """`text` without secrets."""
        return redact_variables(redact(text), environment.variables())

    def report(kind: Literal["notice", "warning"], label: str, text: str) -> None:
        """Write a message after the outputs of the run were closed."""
        if kind == "warning":
            label, text = "warning", f"{label}: {text}"
        text = render_row(label, text)
        if job.console:
            PlainOutput(sys.stdout).write(kind, text)
        job.log(text)

    values = {}
    origins = {}
    for key, setting in job.resolved.values.items():
        values[key] = setting.value
        origins[key] = f"{setting.origin.layer}: {setting.origin.where}"
    names = ("model", "mode", "engine", "device", "precision", "parameters", "samples", "stage")
    went_back = False
    if job.resume and job.resume.source.resolve() == folder.resolve():
        went_back = job.resume.step is not None or bool(job.resume.reset)
    run = Run(
        folder=folder.absolute(),
        track=settings.track,
        settings=redact_values(values, clean),
        origins=redact_values(origins, clean),
        facts={name: getattr(info, name) for name in names},
        went_back=went_back,
        checkpoints=settings.tracking.checkpoints,
        command=program_line("track", folder),
    )
    return Trackers(run, settings.tracking.wait_s, emit, report)
