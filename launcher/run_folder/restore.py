"""Restore of a resumed run on its ranks: checkpoint facts, resume point, and the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import SettingsError
from launcher.config import paths
from launcher.config.provenance import Resolved
from launcher.run_folder import checkpoint_search, generations, run_folder
from launcher.run_folder.checkpoint_search import ResumeRequest
from slurm.environment import Generation
from training.checkpoint import resume_point, retention
from training.checkpoint.manifest import CheckpointError, CheckpointUnreadable
from training.checkpoint.resume_point import ResumePoint
from training.data.fingerprint import fingerprint
from training.logging import metrics
from training.storage import Storage

if TYPE_CHECKING:
    from engines.base import World
    from training.data.order import DataOrder
    from training.data.samples import Samples


def checkpoint_facts(
    resolved: Resolved, samples: Samples, order: DataOrder, world: World, experience: int = 0
) -> dict[str, Any]:
    """Facts about settings and data for every checkpoint of the run. Collective.

    `experience` is the number of the experience that is trained on; 0: the initial data.
    """
    return {
        "settings": paths.kept_values(resolved.values),
        "data": {
            "samples": len(samples),
            "fingerprint": fingerprint(samples, world),
            "global_batch": order.global_batch,
            "seed": order.seed,
        },
        "experience": experience,
    }


def load_resume_point(
    resume: ResumeRequest | None, facts: Mapping[str, Any], world: World
) -> ResumePoint | None:
    """The checkpoint to resume from, verified byte by byte; None: there is none. Collective.

    Raises SettingsError if the requested checkpoint is damaged or missing, all are damaged, or one
    cannot be read for lack of permission, and
    DataError if the data in `facts` is not the data of the checkpoint.
    """
    if resume is None:
        return None
    try:
        choice = resume_point.choose(resume.source, world, resume.step)
    except CheckpointUnreadable as error:
        raise checkpoint_search.unreadable(error, f"--resume {resume.source}") from error
    except CheckpointError as error:
        allowed = "another step, or auto for the newest intact checkpoint"
        where = f"--resume {resume.step}"
        raise SettingsError.of(str(error), where=where, allowed=allowed) from error
    if choice.checkpoint is None:
        if choice.damaged:
            raise SettingsError.of(
                f"all checkpoints of {resume.source} are damaged: "
                f"{'; '.join(choice.damaged.values())}",
                value=str(resume.source),
                where=f"--resume {resume.source}",
                allowed="a run folder with an intact checkpoint; or a new run, with another --out",
            )
        return None
    reset = frozenset(resume.reset)
    if choice.checkpoint.facts.get("experience", 0) != facts["experience"]:
        reset |= {"data", "schedule"}  # the checkpoint was saved before this experience
    point = ResumePoint(choice.checkpoint, reset, resume.changes, choice.damaged)
    point.check_data(facts["data"])
    return point


def prepare_folder(
    resume: ResumeRequest | None,
    resolved: Resolved,
    generation: Generation | None,
    storage: Storage,
    point: ResumePoint | None,
    world: World,
    *,
    is_end: bool,
) -> None:
    """Rewrite the settings, remove metrics after the resume point, set later checkpoints aside.

    `is_end`: no step is left. Rank 0 does it. Touches the disk.
    """
    step = point.step if point else 0
    if world.rank == 0 and generation is not None:
        generations.record_start(storage, generation, step, world.size)
    if world.rank != 0 or resume is None:
        return
    run_folder.rewrite_settings(storage, resolved)
    evaluated_at = point.fact("evaluated_at") if point else None
    metrics.truncate(storage, step, evaluated_at, is_end=is_end)
    if resume.source.resolve() == storage.path.resolve():
        for damaged in point.damaged if point else ():
            retention.mark_damaged(storage, damaged)
        retention.set_aside(storage, step)
