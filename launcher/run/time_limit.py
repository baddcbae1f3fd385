"""The seconds of a budget of time: those of `train.time`, or of a Slurm job."""

from __future__ import annotations

import time
from pathlib import Path

from gearshift.launcher.base import environment
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.slurm.environment import JOB_VARIABLE
from gearshift.training.settings import SLURM, TIME_FORMS, SettingError, time_s

_LEAD_S = 360.0
"""Slurm warns job.sh 300 s before the end, and up to 60 s earlier: then the run is saved."""
_MARGIN_S = 30.0
"""Of another job: for what the run does after its end."""


def lost_s(folder: Path, step: int) -> float:
    """Seconds of the steps after `step` that the run in `folder` logged, and takes again.

    Reads the disk. Raises InvalidRecord.
    """
    seconds = 0.0
    for line in RunReader(folder).metrics():
        if line["kind"] == "train" and line["step"] > step:
            seconds += line["step_time_s"] * (line["step"] - step)
            step = line["step"]
    return seconds


def budget_s(text: str, used_s: float = 0.0) -> float:
    """The seconds of a budget of time, of which `used_s` are over.

    Of a Slurm job: those, and what is left of it now. Raises SettingError outside of a job.
    """
    seconds = time_s(text)
    if seconds is not None:
        return seconds
    environ = environment.variables()
    end = environ.get("SLURM_JOB_END_TIME", "")  # in seconds since the epoch
    if not end.isdecimal():
        raise SettingError(
            "train.time",
            SLURM,
            "needs a Slurm job that tells its end, in SLURM_JOB_END_TIME",
            TIME_FORMS,
        )
    margin_s = _LEAD_S if JOB_VARIABLE in environ else _MARGIN_S
    return used_s + max(int(end) - time.time() - margin_s, 0.0)
