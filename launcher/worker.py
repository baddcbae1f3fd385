"""What one rank does: world, task, engine, loop; reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from engines.base import Options, World
from engines.catalog import build_engine, find
from engines.world import open_world
from launcher import continuation, cores, ds_layout, late_checks, lock, rank, run_folder
from launcher.audience import Listeners
from launcher.handover import Job
from launcher.messages import Fault, SettingsError, shown
from launcher.refusals import place
from launcher.resolved import Resolved
from launcher.taken import Taken
from launcher.torch_modes import modes
from models.base import Context, Task
from models.catalog import FAMILIES
from training import seeds
from training.before import Starts
from training.budget import solve
from training.checkpoint.restore import restore
from training.checkpoint.retention import Keep
from training.checkpoint.saver import Saver
from training.data.loader import Batches, EvaluationBatches
from training.data.order import DataOrder
from training.data.samples import Samples
from training.data.watch import Watch
from training.hooks import Outcome
from training.loop import train
from training.run import Run
from training.settings import SettingError
from training.update import optim


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
    seed, debug = settings.train.seed, settings.train.debug
    undo.enter_context(modes(deterministic=settings.train.deterministic, debug=debug))
    entry = find(resolved.settings.engine.name)
    world = open_world(_device(settings, resolved), settings.engine.timeout_s, entry.always_group)
    undo.callback(world.close)
    undo.callback(cores.use(settings.engine.threads))
    shared = run_folder.share(job.folder, world)
    assert shared is not None, "rank 0 made the run folder before the ranks began"
    if world.rank == 0:
        undo.enter_context(lock.hold(shared))
    world.barrier()  # nobody looks into the folder before it is ours alone
    watch = Watch(settings.engine.timeout_s, partial(rank.give_up, job, world.rank))
    undo.callback(watch.close)

    task = _task(settings, shared, world)
    _in_turn(world, task.setup)
    samples = Samples(task, task.data("train"), seed)
    order = DataOrder(len(samples), resolved.batching.global_batch, seed)
    kept = continuation.kept(resolved, samples, order, world)
    before = continuation.find(job.resume, world)
    if before is not None:
        before.check_data(kept["data"])

    seeds.seed_weights(seed)
    model = task.build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    budget = solve(
        settings,
        order,
        micro_batch=resolved.batching.micro_batch,
        world_size=world.size,
        units=task.units,
        flops_per_sample=task.flops_per_sample(model),
        first_step=before.step if before else 0,
        starts=before.starts if before else Starts(),
        until=job.resume.until if job.resume else None,
    )
    validation = Samples(task, task.data("val"), seed)
    judged = EvaluationBatches(validation, budget.micro_batch, world, settings.loader, watch)

    spec = optim.spec(settings, model, world)
    engine = build_engine(entry.name, world, _options(settings, resolved, task))
    undo.callback(engine.close)
    module = engine.prepare(model, spec, task.blocks(model))
    if before is not None:
        restore(before.checkpoint, engine, slots="optimizer" not in before.reset)

    listeners = Listeners(resolved, shared, world, job.console)
    hooks = listeners.hooks(settings, listeners.about(task, parameters))
    keep = Keep(settings.save.keep_last, settings.save.keep_best, budget.keep_every)
    saver = Saver(shared, world, entry.name, keep, in_background=settings.save.async_)
    run = Run(settings, budget, hooks, judged, saver, kept, before)
    late_checks.check(resolved, budget, settings, speaks=world.rank == 0)
    if job.resume is not None:
        continuation.settle(job, shared, before, world)
    batches = Batches(samples, order, budget, world, settings.loader, watch)
    return train(task, engine, module, batches, run)


def _device(settings: Any, resolved: Resolved) -> str:
    """What `device` came to where the settings were resolved."""
    return settings.device if settings.device != "auto" else resolved.device


def _task(settings: Any, folder: Path, world: World) -> Task:
    module, _, name = FAMILIES[settings.model.family].task.partition(":")
    context = Context(
        seed=settings.train.seed,
        eval_share=settings.eval.share,
        folder=folder,
        device=world.device,
        attention=settings.memory.attention,
    )
    task: Task = getattr(import_module(module), name)(settings.model, settings.data, context)
    return task


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
