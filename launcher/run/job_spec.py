"""Hands a resolved run from the process that a person started to the ranks, unchanged."""

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
"""The variable that tells a rank the process number of who started it."""
_FILE = "job.json"


@dataclass(frozen=True)
class Job:
    """What every rank is told."""

    resolved: Resolved
    folder: Path | None
    """The run folder, made already."""
    console: bool
    """Whether this rank shows its progress; of the job of many: whether rank 0 does."""
    resume: ResumeRequest | None = None
    """What the run goes on from; None: it begins."""
    experience: ExperienceSpec | None = None
    """What a continual run trains on now; None: the data of the settings."""
    generation: Generation | None = None
    """Which life of which job it is; None: of none."""
    reports: Path | None = None
    """Where a rank leaves its report for the supervisor; None: this process tells the person."""


def save(job: Job, folder: Path) -> None:
    """Write `job` into `folder`, which only the person may read. Touches the disk.

    Warnings stay here: the person has been told them.
    """
    resolved = job.resolved
    told = {
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
    (folder / _FILE).write_text(json.dumps(told), encoding="utf-8")


def load(folder: Path) -> Job:
    """Read what `save` wrote; reports are to be left beside it. Touches the disk."""
    told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    values = {key: _value(value) for key, value in told["values"].items()}
    plain = {key: value.value for key, value in values.items()}
    custom_task.add_search_folder(plain.get(custom_task.FOLDER))
    settings = schema.settings_class(plain["model.family"]).model_validate(nested(plain))
    resolved = Resolved(
        settings=settings,
        values=values,
        world_size=told["world_size"],
        nproc=told["nproc"],
        promises=told["promises"],
        notes=told["notes"],
        device=told["device"],
    )
    resume = told["resume"]
    return Job(
        resolved=resolved,
        folder=Path(told["folder"]) if told["folder"] else None,
        console=told["console"],
        resume=resume and ResumeRequest(**{**resume, "source": Path(resume["source"])}),
        experience=told["experience"] and experience.from_json(told["experience"]),
        generation=parse_generation(told["generation"]) if told["generation"] else None,
        reports=folder,
    )


def _value(told: Mapping[str, Any]) -> Setting:
    return Setting(
        told["value"],
        Origin(**told["origin"]),
        [(old, Origin(**origin)) for old, origin in told["replaced"]],
    )
