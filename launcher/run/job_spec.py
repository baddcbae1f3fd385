"""The job spec: what the supervisor hands to each rank, as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.config import custom_task, schema
from launcher.config.provenance import Origin, Resolved, Setting
from launcher.resume.find import ResumeRequest
from launcher.run import experience
from launcher.run.experience import ExperienceSpec
from slurm.environment import Generation, parse_generation
from training.settings import nested

SUPERVISOR = "GEARSHIFT_SUPERVISOR"
"""Environment variable with the process id of the supervisor."""
_FILE = "job.json"


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
    reports: Path | None = None
    """Folder for the reports of ranks to the supervisor; None: no supervisor."""


def save(job: Job, folder: Path) -> None:
    """Write `job` to `folder`, which only the user can read. Touches the disk.

    Without warnings: they have been shown.
    """
    resolved = job.resolved
    content = {
        "values": {key: asdict(value) for key, value in resolved.values.items()},
        "world_size": resolved.world_size,
        "nproc": resolved.nproc,
        "promises": dict(resolved.promises),
        "notes": list(resolved.notes),
        "device": resolved.device,
        "folder": None if job.folder is None else str(job.folder),
        "console": job.console,
        "resume": None if job.resume is None else job.resume.as_json(),
        "experience": None if job.experience is None else experience.to_json(job.experience),
        "generation": None if job.generation is None else str(job.generation),
    }
    (folder / _FILE).write_text(json.dumps(content), encoding="utf-8")


def load(folder: Path) -> Job:
    """Read the job that `save` wrote; reports go to the same folder. Touches the disk."""
    content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    values = {key: _value(value) for key, value in content["values"].items()}
    plain = {key: value.value for key, value in values.items()}
    custom_task.add_search_folder(plain.get(custom_task.FOLDER))
    settings = schema.settings_class(plain["model.family"]).model_validate(nested(plain))
    resolved = Resolved(
        settings=settings,
        values=values,
        world_size=content["world_size"],
        nproc=content["nproc"],
        promises=content["promises"],
        notes=content["notes"],
        device=content["device"],
    )
    resume = content["resume"]
    return Job(
        resolved=resolved,
        folder=Path(content["folder"]) if content["folder"] else None,
        console=content["console"],
        resume=resume and ResumeRequest(**{**resume, "source": Path(resume["source"])}),
        experience=content["experience"] and experience.from_json(content["experience"]),
        generation=parse_generation(content["generation"]) if content["generation"] else None,
        reports=folder,
    )


def _value(content: Mapping[str, Any]) -> Setting:
    return Setting(
        content["value"],
        Origin(**content["origin"]),
        [(old, Origin(**origin)) for old, origin in content["replaced"]],
    )
