"""What one rank does: world, task, engine, loop; reads from top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engines.base import Engine, Options, World
from engines.catalog import build_engine, find
from engines.device import return_freed
from engines.world import open_world
from launcher.base.diagnostics import Diagnostic, SettingsError, shown
from launcher.config import deepspeed_config, late_checks
from launcher.config.custom_task import set_up_task, task_class
from launcher.config.errors import where
from launcher.config.late_checks import TrackedSettings
from launcher.config.provenance import Resolved
from launcher.resume import restore as continuation
from launcher.run import affinity, failures, rank_consistency
from launcher.run.callbacks import Listeners
from launcher.run.experience import resolve_experience
from launcher.run.experience_data import ExperienceData, load_experience
from launcher.run.job_spec import Job
from launcher.run_folder import fence, lock, run_folder
from models.base import Context, Task
from models.common import cache
from training import seeds
from training.callbacks.base import Outcome
from training.checkpoint.restore import restore
from training.checkpoint.resume_point import ResumePoint
from training.checkpoint.retention import Keep
from training.checkpoint.writer import CheckpointWriter
from training.data import feature_cache
from training.data.loader import Batches
from training.data.order import DataOrder
from training.data.samples import Samples
from training.data.workers import DataWatchdog
from training.inspection import Architecture, architecture
from training.loop import train
from training.optim import optimizer
from training.resources.memory import PeakMemory
from training.run_state import Run
from training.settings import SettingError
from training.train_plan import TrainPlan, solve

if TYPE_CHECKING:
    from torch.nn import Module


def work(job: Job) -> Outcome:
    """Train as `job` says, as one of its ranks. Collective.

    Raises SettingsError, DataError and EngineError for what the person can mend.
    """
    with ExitStack() as undo:
        try:
            return _work(job, undo)
        except SettingError as error:
            raise SettingsError([_fault(error, job.resolved)]) from error


def _work(job: Job, undo: ExitStack) -> Outcome:
    resolved = job.resolved
    settings: Any = TrackedSettings(resolve_experience(resolved, job.experience).settings)
    world = _world(resolved, settings, undo)
    folder, door = _folder(job, world, undo)
    watch = _watch(job, settings, world, undo)
    seed = settings.train.seed
    peaks = PeakMemory()  # data and model come now, and count
    parts = _parts(job, settings, folder, world)
    task, samples = parts.tasks[0], Samples(parts.tasks[0], parts.train, seed)
    order = DataOrder(len(samples), resolved.batching.global_batch, seed)
    kept = continuation.kept(resolved, samples, order, world, parts.number)
    before = continuation.find(job.resume, kept, world)

    model, built = _model(task, seed)
    engine, module = _engine(resolved, settings, task, model, world)
    undo.callback(engine.close)
    _take_over(before, engine)
    if not parts.number and _encoded(settings, task, model, module, engine):
        samples = Samples(task, task.data("train"), seed)
    train_plan = solve(
        settings,
        order,
        micro_batch=resolved.batching.micro_batch,
        world_size=world.size,
        units=task.units,
        flops_per_sample=task.flops_per_sample(model),
        before=before,
        until=job.resume.until if job.resume else None,
        experience=parts.number,
    )
    judged, forgetting = parts.evaluation(seed, train_plan, world, settings.loader, watch)

    listeners = Listeners(job, folder, world, door)
    callbacks = listeners.callbacks(settings, listeners.about(parts, built, len(samples)))
    saver = _saver(settings, train_plan, folder, world, door)
    run = Run(settings, train_plan, callbacks, judged, saver, kept, before, peaks, forgetting)
    late_checks.check_before_training(resolved, train_plan, settings, speaks=world.rank == 0)
    continuation.settle(job.resume, resolved, job.generation, folder, before, world, door)
    batches = Batches(samples, order, train_plan, world, settings.loader, watch)
    return train(task, engine, module, batches, run)


def _world(resolved: Resolved, settings: Any, undo: ExitStack) -> World:
    deterministic, debug = settings.train.deterministic, settings.train.debug
    undo.enter_context(modes(deterministic=deterministic, debug=debug))
    if settings.memory.return_freed:
        return_freed()
    always_group = find(resolved.settings.engine.name).always_group
    timeout_s, told = settings.engine.timeout_s, rank_consistency.facts(resolved)
    world = open_world(_device(settings, resolved), timeout_s, always_group, told)
    undo.callback(world.close)
    undo.callback(affinity.use(settings.engine.threads))
    return world


def _watch(job: Job, settings: Any, world: World, undo: ExitStack) -> DataWatchdog:
    watch = DataWatchdog(settings.engine.timeout_s, partial(failures.give_up, job, world.rank))
    undo.callback(watch.close)
    return watch


def _folder(job: Job, world: World, undo: ExitStack) -> tuple[Path, Path | None]:
    """The run folder, which is now ours alone; in a job also the door into it."""
    shared = run_folder.share(job.folder, world)
    assert shared is not None, "rank 0 made the run folder before the ranks began"
    door, generation = None, job.generation
    if world.rank == 0:
        undo.enter_context(lock.hold(shared, generation=generation))
        if generation is not None:
            door = undo.enter_context(fence.taken_over(shared, generation))
    if generation is not None:
        door = run_folder.share(door, world)
        assert door is not None, "rank 0 made the door"
        undo.enter_context(fence.told(shared, generation, door))
    world.barrier()  # nobody looks into it before
    return shared, door


def _engine(
    resolved: Resolved, settings: Any, task: Task, model: Module, world: World
) -> tuple[Engine, Module]:
    """The engine with `model` placed in it, and what the loop calls."""
    spec = optimizer.spec(settings, model, world)
    name = resolved.settings.engine.name
    engine = build_engine(name, world, _options(settings, resolved, task))
    return engine, engine.prepare(model, spec, task.blocks(model))


def _take_over(before: ResumePoint | None, engine: Engine) -> None:
    """Give the engine the state that the run goes on from, where it does."""
    if before is not None:
        restore(before.checkpoint, engine, slots="optimizer" not in before.reset)


def _encoded(settings: Any, task: Task, model: Module, module: Module, engine: Engine) -> bool:
    """Whether the samples of `task` have from now on what a frozen encoder makes of them."""
    computed = {
        "precision": settings.precision,
        "compile": settings.compile,
        "attention": settings.memory.attention,
    }
    place = feature_cache.Place(cache.folder(), computed)
    speaks = engine.world.rank == 0
    tell = partial(print, file=sys.stderr, flush=True) if speaks else _nothing
    return feature_cache.use(task, model, module, engine, settings.feature_cache, place, tell)


def _nothing(_text: str) -> None:
    """Says nothing: another rank does."""


def _saver(
    settings: Any, train_plan: TrainPlan, folder: Path, world: World, door: Path | None
) -> CheckpointWriter:
    keep = Keep(settings.save.keep_last, settings.save.keep_best, train_plan.keep_every)
    in_background, engine = settings.save.async_, settings.engine.name
    return CheckpointWriter(folder, world, engine, keep, in_background, door)


def _device(settings: Any, resolved: Resolved) -> str:
    """What `device` came to where the settings were resolved."""
    return settings.device if settings.device != "auto" else resolved.device


def _parts(job: Job, settings: Any, folder: Path, world: World) -> ExperienceData:
    """The data in its parts; the first one's task is the run's."""
    context = Context(
        seed=settings.train.seed,
        eval_share=settings.eval.share,
        folder=folder,
        device=world.device,
        attention=settings.memory.attention,
        reset_data=job.resume is not None and "data" in job.resume.reset,
    )
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    set_up_task(task, world)
    late_checks.check_splits(task, folder)
    return load_experience(job.experience, task, context, job.resolved.settings, world)


def _model(task: Task, seed: int) -> tuple[Module, Architecture]:
    """The model with its first weights, and what it is made of."""
    seeds.seed_weights(seed)
    model = task.build()
    return model, architecture(model)


def _options(settings: Any, resolved: Resolved, task: Task) -> Options:
    return Options(
        precision=settings.precision,
        compile=settings.compile == "on",
        activation_checkpointing=_every(settings.memory.activation_checkpointing),
        channels_last=task.channels_last,
        ds_config=deepspeed_config.layout(resolved, settings.engine.ds_config),
        micro_batch=resolved.batching.micro_batch,
        accumulation=resolved.batching.accumulation,
        offload_threads=settings.engine.threads,
    )


def _every(written: str) -> int:
    """`none`, `full` or `every N` as a number: 0, 1, N."""
    named = {"none": 0, "full": 1}
    return named[written] if written in named else int(written.removeprefix("every "))


def _fault(error: SettingError, resolved: Resolved) -> Diagnostic:
    value = resolved.values[error.key]
    return Diagnostic(
        f"{error.key} {shown(error.value)} {error.wrong}",
        key=error.key,
        value=error.value,
        where=where(error.key, value.origin),
        allowed=error.allowed,
        fix=error.write,
    )


@contextmanager
def modes(*, deterministic: bool, debug: bool) -> Iterator[None]:
    """Deterministic algorithms, and the search for the source of a NaN, while it is open.

    A run from Python leaves torch as it found it.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.is_anomaly_enabled(),
    )
    if deterministic:
        seeds.make_deterministic()
    if debug:
        seeds.detect_anomalies()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[2:4]
        torch.autograd.set_detect_anomaly(before[4])
