"""The plan of a run: its settings, what it resumes, and where its ranks run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearshift.launcher.base.diagnostics import Diagnostic
from gearshift.launcher.config.provenance import ResetPart, Resolved
from gearshift.launcher.run_folder import run_folder
from gearshift.slurm.environment import Generation, RankEnvironment


@dataclass(frozen=True)
class ResumeRequest:
    """What to resume from, for the ranks."""

    source: Path
    """The run folder with the checkpoints; the folder written to unless the run is a fork."""
    step: int | None = None
    """Only the checkpoint of this step; None: the newest intact one, or none."""
    reset: Sequence[ResetPart] = ()
    """State to reinitialize instead of restoring it."""
    changes: Sequence[str] = ()
    """Settings that differ from those of the checkpoint, one line each."""
    until: int | None = None
    """The last step of a replay; None: no replay."""


@dataclass(frozen=True)
class ExperienceSpec:
    """The data and settings of one start of the ranks of a continual run."""

    run: Path
    """The run folder with the data of its experiences."""
    numbers: Sequence[int]
    """The first data (0), then the experiences to replay, then the one to train on."""
    settings: Mapping[str, Any]
    """See `experience.recorded_settings`; empty for the first data."""
    deadline: float | None = None
    """When to save and stop, in seconds since the epoch; None: at its end."""

    @property
    def number(self) -> int:
        """The experience to train on."""
        return self.numbers[-1]


@dataclass(frozen=True)
class RunPlan:
    """What a start does; nothing has been written. Its ranks read it as a file."""

    resolved: Resolved
    resume: ResumeRequest | None = None
    """What to resume from; None: a new run."""
    line: str | None = None
    """Message about the resumed run; None: without --resume."""
    nothing_left: Mapping[str, Any] | None = None
    """The result of a run that was completed before, as the new settings do not extend it; `line` says so."""
    launched: RankEnvironment | None = None
    """Set by torchrun or srun: this process is one of their ranks."""
    generation: Generation | None = None
    """The generation of the Slurm job; None: no job."""
    out: Path | None = None
    name: str = ""
    """Name of the run folder without --out."""
    threads: int | None = None
    """CPU threads per process; None: the default of torch."""
    separate: bool = False
    """Ranks run in processes of their own, even a single one."""
    is_continual: bool = False
    """Ranks are started again as data arrives, or for an unfinished experience."""
    is_trained: bool = False
    """The first data is trained on; what is left is continual learning."""
    folder: Path | None = None
    """The run folder, once rank 0 has made it; None on other ranks of torchrun or srun."""
    console: bool = False
    """Whether rank 0 writes to the console."""
    experience: ExperienceSpec | None = None
    """What a continual run trains on now; None: the data of the settings."""
    split: str | None = None
    """The split to evaluate instead of training; None: train."""
    reports: Path | None = None
    """Where ranks write how they ended, for the supervisor; None: no supervisor."""

    @property
    def number(self) -> int:
        """The experience to train on; 0: the first data, and in a run that does not learn continually."""
        return 0 if self.experience is None else self.experience.number

    @property
    def destination(self) -> Path:
        """The run folder to be; a number may be appended to a default name."""
        if self.out is not None:
            return self.out
        return self.resume.source if self.resume else run_folder.PARENT / self.name

    @property
    def warnings(self) -> Sequence[Diagnostic]:
        """Warnings about the settings."""
        return self.resolved.warnings

    @property
    def starts_processes(self) -> bool:
        """Whether ranks run in processes started for them."""
        settings = self.resolved.settings
        restarts = settings.engine.max_restarts > 0
        return self.separate or self.resolved.nproc > 1 or restarts or settings.continual.enabled

    @property
    def is_rank_0(self) -> bool:
        """Whether this process reports to the user."""
        return self.launched is None or self.launched.rank == 0

    def log(self, text: str) -> None:
        """Append to the log of the run, if this process knows its folder. Touches the disk."""
        if self.folder is not None:
            run_folder.append_log(self.folder, text)
