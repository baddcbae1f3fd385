"""The seconds of a budget of time: those of `train.time`, of a Slurm job, and lost ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.slurm.variables import job_seconds
from gearshift.training.settings import SLURM, TIME_FORMS, SettingError, time_s

if TYPE_CHECKING:
    from gearshift.engines.base import World


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


def lost_s(folder: Path, step: int) -> float:
    """Seconds of the steps after `step` that the run in `folder` logged. Reads the disk."""
    seconds = 0.0
    before = step
    for line in RunReader(folder).metrics():
        if line["kind"] == "train" and line["step"] > before:
            seconds += line["step_time_s"] * (line["step"] - before)
            before = line["step"]
    return seconds


def agreed_s(seconds: float, world: World) -> float:
    """The `seconds` of rank 0, on every rank. Collective."""
    return float(world.broadcast(str(seconds).encode()))
