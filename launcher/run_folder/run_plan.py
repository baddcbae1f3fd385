"""The plan of a run: its settings, what it resumes, and where its ranks run; and runs in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gearshift.launcher.base.diagnostics import Diagnostic
from gearshift.launcher.config.check import why_ineffective
from gearshift.launcher.config.provenance import ResetPart, Resolved
from gearshift.launcher.run_folder import run_folder
from gearshift.slurm.environment import Generation, RankEnvironment
from gearshift.training.callbacks.base import Facts
from gearshift.training.train_plan import ShareChange


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
    shares: Sequence[ShareChange] = field(default_factory=list)
    """Of a replay: the shares of the ranks that were measured."""
    fits: Sequence[Sequence[int]] = field(default_factory=list)
    """Of a replay, the steps at which the run was fitted to its budget of time, and its lengths."""


@dataclass(frozen=True)
class ExperienceSpec:
    """The data and settings of one start of the ranks of a continual run."""

    run: Path
    """The run folder with the data of its experiences."""
    numbers: Sequence[int]
    """The first data (0), then the experiences to replay, then the one to train on."""
    settings: Facts
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
    nothing_left: Facts | None = None
    """The result of a run that was completed before; None: it is not, or is to be longer."""
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
    folder: Path | None = None
    """The run folder, once rank 0 has made it; None on other ranks of torchrun or srun."""
    console: bool = False
    """Whether rank 0 writes to the console."""
    experience: ExperienceSpec | None = None
    """What a continual run trains on now; None: the data of the settings."""
    split: str | None = None
    """The split to evaluate instead of training; None: train."""
    trace: Path | None = None
    """A folder for what each step of a replay computes; None: it is not recorded."""
    reports: Path | None = None
    """Where ranks write how they ended, for the supervisor; None: no supervisor."""

    @property
    def number(self) -> int:
        """The experience to train on; 0: the first data, as in a run that is not continual."""
        return self.experience.number if self.experience else 0

    @property
    def destination(self) -> Path:
        """The run folder to be; a number may be appended to a default name."""
        if self.out:
            return self.out
        return self.resume.source if self.resume else run_folder.PARENT / self.name

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
        if self.folder:
            run_folder.append_log(self.folder, text)


@dataclass(frozen=True)
class PipelineStage:
    """One run of a pipeline."""

    name: str
    """Empty: the only run."""
    sentence: str
    folder: Path
    start: RunPlan | None
    """What it does; None: a stage that is completed."""


@dataclass(frozen=True)
class Pipeline:
    """Runs to make one after the other: the stages of a staged run, or a single run."""

    folder: Path
    entries: Sequence[PipelineStage]
    is_resumed: bool = False
    """A staged run that started earlier: its folder exists."""
    line: str | None = None
    """Message about resuming; None: --resume was not given."""
    nothing_left: Facts | None = None
    """The result of runs that were all completed before; None: some are left."""

    @classmethod
    def of(cls, plan: RunPlan) -> Pipeline:
        """The pipeline of a single run."""
        folder = plan.destination
        return cls(
            folder,
            [PipelineStage("", "", folder, plan)],
            line=plan.line,
            nothing_left=plan.nothing_left,
        )

    @property
    def is_staged(self) -> bool:
        """Whether its runs are stages."""
        return self.entries[0].name != ""

    @property
    def left(self) -> list[tuple[PipelineStage, RunPlan]]:
        """The runs still to make."""
        return [(entry, entry.start) for entry in self.entries if entry.start]

    @property
    def plan(self) -> RunPlan:
        """The plan of the next run: of a single run, the only one."""
        return self.left[0][1]

    @property
    def launched(self) -> RankEnvironment | None:
        """As RunPlan.launched; each stage runs in its own processes."""
        return None if self.is_staged else self.plan.launched

    @property
    def is_rank_0(self) -> bool:
        """Whether this process reports to the user."""
        return self.is_staged or self.plan.is_rank_0

    @property
    def folders(self) -> dict[str, Path]:
        """The run folder of each stage; empty: a single run."""
        return {entry.name: entry.folder for entry in self.entries if entry.name}

    def title(self, stage: PipelineStage) -> str:
        """`stage 1 of 2: encoder, what is trained there`."""
        position = self.entries.index(stage) + 1
        title = f"stage {position} of {len(self.entries)}: {stage.name}"
        return f"{title}, {stage.sentence}" if stage.sentence else title

    @property
    def warnings(self) -> list[Diagnostic]:
        """Warnings of all runs, each once, without settings that another run uses."""
        runs = [plan.resolved for _, plan in self.left]
        warnings = {}
        for run in runs:
            for warning in run.warnings:
                key = warning.key or ""
                is_used_here = key not in run.values or _uses(run, key)
                if is_used_here or not any(_uses(other, key) for other in runs):
                    warnings[warning.message, warning.where] = warning
        return list(warnings.values())


def _uses(run: Resolved, key: str) -> bool:
    return key in run.values and why_ineffective(run.values, key) is None
