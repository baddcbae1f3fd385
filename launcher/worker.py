"""What one rank does: world, task, engine, loop; reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import Engine, Options, World
from engines.catalog import build_engine, find
from engines.world import open_world
from launcher import ds_layout, run_folder
from launcher.audience import Listeners
from launcher.going_on import continuation, lock
from launcher.messages import Fault, SettingsError, shown
from launcher.processes import cores, last_words
from launcher.processes.handover import Job
from launcher.settings import late_checks
from launcher.settings.refusals import place
from launcher.settings.resolved import Resolved
from launcher.settings.taken import Taken
from launcher.task_class import task_class
from launcher.torch_modes import modes
from models.base import Context, Task
from training import seeds
from training.budget import solve
from training.checkpoint.restore import restore
from training.checkpoint.retention import Keep
from training.checkpoint.saver import Saver
from training.data.loader import Batches, EvaluationBatches
from training.data.order import DataOrder
from training.data.samples import Samples
from training.data.watch import Watch
from training.hooks import Budget, Outcome
from training.loop import train
from training.run import Run
from training.settings import SettingError
from training.update import optim

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
    settings: Any = Taken(resolved.settings)
    world = _world(resolved, settings, undo)
    folder = _folder(job, world, undo)
    watch = Watch(settings.engine.timeout_s, partial(last_words.give_up, job, world.rank))
    undo.callback(watch.close)

    seed = settings.train.seed
    task = _task(job, settings, folder, world)
    samples = Samples(task, task.data("train"), seed)
    order = DataOrder(len(samples), resolved.batching.global_batch, seed)
    kept = continuation.kept(resolved, samples, order, world)
    before = continuation.find(job.resume, kept, world)

    model, parameters = _model(task, seed)
    budget = solve(
        settings,
        order,
        micro_batch=resolved.batching.micro_batch,
        world_size=world.size,
        units=task.units,
        flops_per_sample=task.flops_per_sample(model),
        before=before,
        until=job.resume.until if job.resume else None,
    )
    validation = Samples(task, task.data("val"), seed)
    judged = EvaluationBatches(validation, budget.micro_batch, world, settings.loader, watch)
    engine, module = _engine(resolved, settings, task, model, world)
    undo.callback(engine.close)
    if before is not None:
        restore(before.checkpoint, engine, slots="optimizer" not in before.reset)

    listeners = Listeners(resolved, folder, world, job.console)
    hooks = listeners.hooks(settings, listeners.about(task, parameters))
    saver = _saver(settings, budget, folder, world)
    run = Run(settings, budget, hooks, judged, saver, kept, before)
    late_checks.check(resolved, budget, settings, speaks=world.rank == 0)
    continuation.settle(job, folder, before, world)
    batches = Batches(samples, order, budget, world, settings.loader, watch)
    return train(task, engine, module, batches, run)


def _world(resolved: Resolved, settings: Any, undo: ExitStack) -> World:
    deterministic, debug = settings.train.deterministic, settings.train.debug
    undo.enter_context(modes(deterministic=deterministic, debug=debug))
    always_group = find(resolved.settings.engine.name).always_group
    world = open_world(_device(settings, resolved), settings.engine.timeout_s, always_group)
    undo.callback(world.close)
    undo.callback(cores.use(settings.engine.threads))
    return world


def _folder(job: Job, world: World, undo: ExitStack) -> Path:
    """The run folder, which is now ours alone."""
    shared = run_folder.share(job.folder, world)
    assert shared is not None, "rank 0 made the run folder before the ranks began"
    if world.rank == 0:
        undo.enter_context(lock.hold(shared))
    world.barrier()  # nobody looks into it before
    return shared


def _engine(
    resolved: Resolved, settings: Any, task: Task, model: Module, world: World
) -> tuple[Engine, Module]:
    """The engine with `model` placed in it, and what the loop calls."""
    spec = optim.spec(settings, model, world)
    name = resolved.settings.engine.name
    engine = build_engine(name, world, _options(settings, resolved, task))
    return engine, engine.prepare(model, spec, task.blocks(model))


def _saver(settings: Any, budget: Budget, folder: Path, world: World) -> Saver:
    keep = Keep(settings.save.keep_last, settings.save.keep_best, budget.keep_every)
    return Saver(folder, world, settings.engine.name, keep, in_background=settings.save.async_)


def _device(settings: Any, resolved: Resolved) -> str:
    """What `device` came to where the settings were resolved."""
    return settings.device if settings.device != "auto" else resolved.device


def _task(job: Job, settings: Any, folder: Path, world: World) -> Task:
    context = Context(
        seed=settings.train.seed,
        eval_share=settings.eval.share,
        folder=folder,
        device=world.device,
        attention=settings.memory.attention,
        data_anew=job.resume is not None and "data" in job.resume.reset,
    )
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    _in_turn(world, task.setup)
    return task


def _model(task: Task, seed: int) -> tuple[Module, int]:
    """The model with its first weights, and how many there are."""
    seeds.seed_weights(seed)
    model = task.build()
    return model, sum(parameter.numel() for parameter in model.parameters())


def _in_turn(world: World, action: Callable[[], object]) -> None:
    """Run `action` on rank 0, and then, with what it left in the run folder, on the others."""
    if world.rank == 0:
        action()
    world.barrier()
    if world.rank != 0:
        action()


def _options(settings: Any, resolved: Resolved, task: Task) -> Options:
    return Options(
        precision=settings.precision,
        compile=settings.compile == "on",
        activation_checkpointing=_every(settings.memory.activation_checkpointing),
        channels_last=task.channels_last,
        ds_config=ds_layout.layout(resolved, settings.engine.ds_config),
        micro_batch=resolved.batching.micro_batch,
        accumulation=resolved.batching.accumulation,
        offload_threads=settings.engine.threads,
    )


def _every(written: str) -> int:
    """`none`, `full` or `every N` as a number: 0, 1, N."""
    named = {"none": 0, "full": 1}
    return named[written] if written in named else int(written.removeprefix("every "))


def _fault(error: SettingError, resolved: Resolved) -> Fault:
    value = resolved.values[error.key]
    return Fault(
        f"{error.key} {shown(error.value)} {error.wrong}",
        key=error.key,
        value=error.value,
        place=place(error.key, value.origin),
        legal=error.legal,
        mend=error.write,
    )
