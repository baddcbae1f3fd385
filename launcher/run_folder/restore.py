"""Restore of a resumed run on its ranks: the resume point, and the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import SettingsError
from launcher.config.provenance import Resolved
from launcher.run_folder import checkpoint_search, run_folder
from launcher.run_folder.run_plan import ResumeRequest
from training.checkpoint import resume_point, retention
from training.checkpoint.manifest import CheckpointError, CheckpointUnreadable
from training.checkpoint.resume_point import ResumePoint
from training.logging import metrics
from training.storage import Storage

if TYPE_CHECKING:
    from engines.base import World


def load_resume_point(
    resume: ResumeRequest, facts: Mapping[str, Any], world: World, folder: Path
) -> ResumePoint | None:
    """The checkpoint to resume from, verified byte by byte; None: there is none. Collective.

    `folder` is the one that the run writes to.

    Raises SettingsError if the requested checkpoint is damaged or missing, all are damaged, or one cannot be
    read for lack of permission, and DataError if the data in `facts` is not the data of the checkpoint.
    """
    where = f"--resume {resume.source}"
    try:
        checkpoint, damaged = resume_point.choose(resume.source, world, resume.step)
    except CheckpointUnreadable as error:
        raise checkpoint_search.unreadable(error, where) from error
    except CheckpointError as error:
        allowed = "another step, or auto for the newest intact checkpoint"
        where = f"--resume {resume.step}"
        raise SettingsError.of(str(error), where=where, allowed=allowed) from error
    if checkpoint is None and damaged:
        reasons = "; ".join(damaged.values())
        message = f"all checkpoints of {resume.source} are damaged: {reasons}"
        allowed = "a run folder with an intact checkpoint; or a new run, with another --out"
        raise SettingsError.of(message, value=str(resume.source), where=where, allowed=allowed)
    if checkpoint is None:
        return None
    reset = frozenset(resume.reset)
    if checkpoint.facts.get("experience", 0) != facts["experience"]:
        reset |= {"data", "schedule"}  # the checkpoint was saved before this experience
    is_fork = resume.until is None and resume.source.resolve() != folder.resolve()
    point = ResumePoint(checkpoint, reset, resume.changes, damaged, is_fork)
    point.check_data(facts["data"])
    return point


def prepare_folder(
    resume: ResumeRequest, resolved: Resolved, storage: Storage, point: ResumePoint | None, *, is_end: bool
) -> None:
    """Rewrite the settings, remove metrics after the resume point, set later checkpoints aside.

    `is_end`: no step is left. For rank 0. Touches the disk.
    """
    step = point.step if point else 0
    run_folder.rewrite_settings(storage, resolved)
    metrics.truncate(storage, step, point.fact("evaluated_at") if point else None, is_end=is_end)
    if resume.source.resolve() == storage.path.resolve():
        retention.set_aside(storage, step, point.damaged if point else ())
