"""The job spec: what the supervisor hands to each rank, as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from launcher.config import schema
from launcher.config.presets import TASK_FOLDER
from launcher.config.provenance import Resolved
from launcher.run_folder import run_folder
from launcher.run_folder.resume import ResumeRequest
from models.catalog import is_custom
from slurm.environment import Generation
from training.settings import nested

if TYPE_CHECKING:
    from launcher.run_folder.experiences import ExperienceFolder

SUPERVISOR = "GEARSHIFT_SUPERVISOR"
"""Environment variable with the process id of the supervisor."""
_FILE = "job.json"


@dataclass(frozen=True)
class ExperienceSpec:
    """The data and settings of one start of the ranks of a continual run."""

    number: int
    """0: the data that the run began with."""
    run: Path
    """The run folder with the data of its experiences."""
    numbers: Sequence[int]
    """The first data, then the experiences to replay, then the one to train on."""
    settings: Mapping[str, Any]
    """See `experience.recorded_settings`; empty for the first data."""
    deadline: float | None = None
    """When to save and stop, in seconds since the epoch; None: at its end."""

    @property
    def folders(self) -> list[ExperienceFolder]:
        """The folders of `numbers`."""
        from launcher.run_folder.experiences import folder_of  # for continual runs

        return [folder_of(self.run, number) for number in self.numbers]


@dataclass(frozen=True)
class Job:
    """What each rank needs to train."""

    resolved: Resolved
    folder: Path | None
    """The run folder, created by rank 0; None on other ranks of torchrun or srun."""
    console: bool
    """Whether rank 0 writes to the console."""
    resume: ResumeRequest | None = None
    """What to resume from; None: a new run."""
    experience: ExperienceSpec | None = None
    """What a continual run trains on now; None: the data of the settings."""
    generation: Generation | None = None
    """The generation of the Slurm job; None: no job."""
    split: str | None = None
    """The split to evaluate instead of training; None: train."""
    reports: Path | None = None
    """Folder for the reports of ranks to the supervisor; None: no supervisor."""

    def log(self, text: str) -> None:
        """Append to the log of the run, if this process knows its folder. Touches the disk."""
        if self.folder is not None:
            run_folder.append_log(self.folder, text)


def save(job: Job, folder: Path) -> None:
    """Write `job` to `folder`, which only the user can read. Touches the disk.

    Without warnings: they have been shown.
    """
    # `load` builds the settings again from the values.
    plain = replace(job, resolved=replace(job.resolved, settings=None, warnings=()))
    content = TypeAdapter(Job).dump_python(plain, mode="json")
    (folder / _FILE).write_text(json.dumps(content), encoding="utf-8")


def load(folder: Path) -> Job:
    """Read the job that `save` wrote; reports go to the same folder. Touches the disk."""
    job = TypeAdapter(Job).validate_python(json.loads((folder / _FILE).read_bytes()))
    plain = {key: value.value for key, value in job.resolved.values.items()}
    if is_custom(plain["model.family"]):
        from launcher.config import custom_task  # for the runs that train one

        custom_task.add_search_folder(plain.get(TASK_FOLDER))
    settings = schema.settings_class(plain["model.family"]).model_validate(nested(plain))
    return replace(job, resolved=replace(job.resolved, settings=settings), reports=folder)
