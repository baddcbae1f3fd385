"""The seconds of a budget of time: those of `train.time`, or of a Slurm job."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.slurm.environment import JOB_VARIABLE
from gearshift.training.logging import resumed_lines
from gearshift.training.settings import SLURM, TIME_FORMS, SettingError, time_s

if TYPE_CHECKING:
    from gearshift.training.checkpoint.resume_point import ResumePoint


_LEAD_S = 360.0
"""Slurm warns job.sh 300 s before the end, and up to 60 s earlier: then the run is saved."""
_MARGIN_S = 30.0
"""Of another job: for what the run does after its end."""


def job_seconds(environ: Mapping[str, str], now: float) -> float | None:
    """What is left of the Slurm job at `now`, in seconds since the epoch; None: there is none."""
    end = environ.get("SLURM_JOB_END_TIME", "")
    if not end.isdecimal():
        return None
    return int(end) - now - (_LEAD_S if environ.get(JOB_VARIABLE) else _MARGIN_S)


def budget(
    job: RunPlan, text: str, folder: Path, resumed: ResumePoint | None
) -> tuple[float, ResumePoint | None]:
    """The seconds of the budget, and the resume point with what the run in `folder` lost after it.

    Reads the disk. Raises SettingError as `budget_s`.
    """
    if job.resume is not None and job.resume.until is not None:
        return time_s(text) or 0.0, resumed  # a replay is as long as its run
    if job.resume is None or resumed is None:
        return budget_s(text), resumed
    if job.resume.step is None:  # else the user goes back, and wants other steps
        resumed = replace(resumed, lost_s=resumed_lines.lost_s(folder, resumed.step))
    return budget_s(text, resumed.wall_s), resumed


def budget_s(text: str, used_s: float = 0.0) -> float:
    """The seconds of a budget of time, of which `used_s` are over.

    Of a Slurm job: those, and what is left of it now. Raises SettingError outside of a job.
    """
    seconds = time_s(text)
    if seconds is not None:
        return seconds
    left_s = job_seconds(environment.variables(), time.time())
    if left_s is None:
        raise SettingError(
            "train.time",
            SLURM,
            "needs a Slurm job that tells its end, in SLURM_JOB_END_TIME",
            TIME_FORMS,
        )
    return used_s + max(left_s, 0.0)


def forget_training(folder: Path) -> None:
    """Remove the steps and the checkpoints of the run in `folder`. Touches the disk."""
    (folder / run_folder.METRICS).unlink(missing_ok=True)
    shutil.rmtree(folder / run_folder.CHECKPOINTS, ignore_errors=True)
