"""The data that a rank trains and evaluates on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base import signals
from launcher.config import validate
from launcher.config.schema import Settings, task_class
from launcher.run_folder.run_plan import RunPlan
from models.base import Context, Task
from training.data.loader import EvaluationBatches
from training.data.samples import ReplayMixture, Samples
from training.evaluation.held_out import HeldOut, HeldOutPart

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine, World
    from launcher.config.provenance import Resolved
    from models.base import Split, SplitName
    from training.checkpoint.resume_point import ResumePoint


@dataclass(frozen=True)
class RankData:
    """The data that a rank trains and evaluates on."""

    number: int
    """Of the experience; 0: the data that the run began with."""
    train: Split
    tasks: Sequence[Task]
    """One for each experience, the newest last; the model is built by the first."""

    @property
    def notes(self) -> list[str]:
        """Lines about the data for the user."""
        if not isinstance(self.train, ReplayMixture):
            return []
        old = self.train.replayed
        new = len(self.train) - old
        return [f"experience {self.number}: {new} new and {old} replayed samples per epoch"]

    def held_out(self, seed: int, max_samples: int | None, size: int, world: World, *loading: Any) -> HeldOut:
        """The held-out data of all tasks.

        `max_samples` of each evaluation; the chance of a noise control is that of the whole split.
        `size`: of a micro-batch; `loading`: the last arguments of EvaluationBatches.

        Raises DataError if a split is empty.
        """
        parts = []
        for task in self.tasks:
            samples = Samples(task, task.data("val"), seed)
            capped = None if task.facts().get("control") else max_samples
            batches = EvaluationBatches(samples, size, world, *loading, limit=capped)
            parts.append(HeldOutPart(task, batches))
        return HeldOut(parts, self.number)


def load_data(
    job: RunPlan, settings: Settings, folder: Path, world: World, resumed: ResumePoint | None
) -> RankData:
    """The data of the run, or of an experience and its replay; the first task is the run's.

    Collective.
    """
    is_reset = job.resume is not None and "data" in job.resume.reset
    context = Context(
        seed=settings.train.seed,
        eval_share=settings.eval.share,
        folder=folder,
        device=world.device,
        attention=settings.memory.attention,
        reset_data=is_reset,
        earlier_splits=_earlier_splits(job.resolved, folder, world, resumed if is_reset else None),
    )
    model, data = (getattr(settings, name) for name in ("model", "data"))  # of the family
    with signals.deferred():
        build_task = task_class(model.family)
    task = build_task(model, data, context)
    world.rank_0_first(task.setup)
    validate.check_splits(task, folder)
    if job.experience is None or not job.experience.number:
        return RankData(0, task.data("train"), [task])
    from launcher.run.experience import load_experience

    train, tasks = load_experience(job.experience, task, context, job.resolved.settings, world)
    return RankData(job.experience.number, train, tasks)


_OF_SPLIT = ("eval.share", "train.seed", "data.split_seed", "data.fold", "data.split")
"""Settings by which groups are drawn; if one of them changes, all groups are drawn again."""


def _earlier_splits(
    resolved: Resolved, folder: Path, world: World, reset: ResumePoint | None
) -> dict[str, SplitName] | None:
    """The splits of groups that the data of an earlier start had, which they keep. Collective.

    Of the run in `folder`, if its data is `reset` and its groups are drawn as before; or of the run
    whose weights a new run starts with: none of its training groups may validate. Rank 0 reads.
    """
    from models.common.split import SPLIT_FILE, load_sides

    values = {key: setting.value for key, setting in resolved.values.items()}
    earlier: dict[str, SplitName] = {}
    if world.rank == 0:
        earlier = load_sides(folder, only_earlier=True)
        before = None if reset is None else reset.fact("settings", {})
        if before is not None and all(before.get(k) == values.get(k) for k in _OF_SPLIT):
            earlier |= load_sides(folder)
        start, is_new = values.get("model.start"), not (folder / SPLIT_FILE).exists()
        if start is not None and is_new and values.get("data.fold") is None:
            path = Path(start).expanduser()
            runs = (p for p in (path, *path.parents[:3]) if (p / SPLIT_FILE).is_file())
            earlier = next(map(load_sides, runs), {})
    return json.loads(world.broadcast(json.dumps(earlier).encode())) or None


def uses_feature_cache(settings: Settings, task: Task, model: Module, module: Module, engine: Engine) -> bool:
    """Whether the samples of `task` are cached outputs of its frozen encoder from now on."""
    from models.common.data_files import cache_folder  # for tasks with such an encoder
    from training.data import feature_cache

    computed = {
        "precision": settings.precision,
        "compile": settings.compile,
        "attention": settings.memory.attention,
    }
    location = feature_cache.CacheLocation(cache_folder(), computed)

    def show(text: str) -> None:
        if engine.world.rank == 0:
            print(text, file=sys.stderr, flush=True)

    return feature_cache.use(task, model, module, engine, settings.feature_cache, location, show)
