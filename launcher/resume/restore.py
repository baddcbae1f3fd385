"""What a rank does so that its run goes on from a checkpoint, and so that another can later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config.provenance import Resolved
from launcher.resume.find import ResumeRequest
from launcher.run_folder import generations, run_folder
from slurm.environment import Generation
from training.checkpoint import resume_point, retention
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.resume_point import ResumePoint
from training.data.fingerprint import fingerprint
from training.logging import metrics
from training.storage import Storage

if TYPE_CHECKING:
    from engines.base import World
    from training.data.order import DataOrder
    from training.data.samples import Samples


def kept(
    resolved: Resolved, samples: Samples, order: DataOrder, world: World, experience: int = 0
) -> dict[str, Any]:
    """What every checkpoint of the run says of its settings and its data. Collective.

    `experience` is the number of the one that is learnt; 0: the data that the run began with.
    """
    return {
        "settings": {key: value.value for key, value in resolved.values.items()},
        "data": {
            "samples": len(samples),
            "fingerprint": fingerprint(samples, world),
            "global_batch": order.global_batch,
            "seed": order.seed,
        },
        "experience": experience,
    }


def find(resume: ResumeRequest | None, kept: Mapping[str, Any], world: World) -> ResumePoint | None:
    """The checkpoint to go on from, every byte of it checked; None: there is none. Collective.

    Raises SettingsError where the one that the person named is damaged or missing, or all are, and
    DataError where the data in `kept` is not what it was made with.
    """
    if resume is None:
        return None
    try:
        found = resume_point.choose(resume.source, world, resume.step)
    except CheckpointError as fault:
        allowed = "another step, or auto for the newest whole one"
        place = f"--resume {resume.step}"
        raise SettingsError([Diagnostic(str(fault), where=place, allowed=allowed)]) from fault
    if found.checkpoint is None:
        if found.damaged:
            raise SettingsError([_none_is_whole(resume.source, found.damaged)])
        return None
    reset = frozenset(resume.reset)
    if found.checkpoint.facts.get("experience", 0) != kept["experience"]:
        reset |= {"data", "schedule"}  # the checkpoint is of what was learnt before this experience
    before = ResumePoint(found.checkpoint, reset, resume.changes, found.damaged)
    before.check_data(kept["data"])
    return before


def _none_is_whole(run: Path, damaged: Mapping[int, str]) -> Diagnostic:
    return Diagnostic(
        f"no checkpoint of {run} is whole: {'; '.join(damaged.values())}",
        value=str(run),
        where=f"--resume {run}",
        allowed="a run folder with a whole checkpoint; or a new run, with another --out",
    )


def settle(
    resume: ResumeRequest | None,
    resolved: Resolved,
    generation: Generation | None,
    folder: Path,
    before: ResumePoint | None,
    world: World,
    door: Path | None = None,
) -> None:
    """Make the folder that of the run that goes on: its settings, no lines and no checkpoints later
    than where it begins. Rank 0's; touches disk.
    """
    step = before.step if before else 0
    if world.rank == 0 and generation is not None:
        generations.begin(folder, generation, step, world.size, door)
    if world.rank != 0 or resume is None:
        return
    run_folder.renew(folder, resolved, door)
    evaluated_at = before.fact("evaluated_at") if before else None
    metrics.truncate(Storage(folder, door), step, evaluated_at)
    if resume.source.resolve() == folder.resolve():
        for damaged in before.damaged if before else ():
            retention.mark_damaged(folder, damaged, door)
        retention.set_aside(folder, step, door)
