"""The training of one rank: world, data, model, engine, callbacks, loop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from gearshift.engines.base import Engine, World
from gearshift.engines.catalog import build_engine, by_processes, find
from gearshift.engines.device import return_freed
from gearshift.engines.parameters import check_parameters, with_dense_tensors
from gearshift.engines.preparation import tune_convolutions
from gearshift.engines.state import WEIGHT, stored
from gearshift.engines.world import open_world
from gearshift.launcher.base import environment, signals
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config import check, paths
from gearshift.launcher.config.adapt import engine_options
from gearshift.launcher.config.batching import check_fills
from gearshift.launcher.config.check import TrackedSettings
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import Settings, task_class
from gearshift.launcher.run import callbacks
from gearshift.launcher.run_folder import lock, run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.base import Context, DataError, HasBaseWeights, HasFrozenEncoder, Task
from gearshift.models.common.split import earlier_sides
from gearshift.training import seeds
from gearshift.training.agreement import first_error
from gearshift.training.callbacks.base import TEST, Outcome
from gearshift.training.checkpoint import retention, tensor_file
from gearshift.training.checkpoint.reader import CheckpointWeights
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.data.loader import Batches, EvaluationBatches, order_of
from gearshift.training.data.samples import DataOrder, Samples, fingerprint
from gearshift.training.evaluation.evaluate import HeldOut, HeldOutPart
from gearshift.training.inspection import Architecture, architecture
from gearshift.training.loop import train
from gearshift.training.optim import optimizer
from gearshift.training.resources.memory import PeakMemory
from gearshift.training.run_state import TrainingRun
from gearshift.training.settings import SettingError
from gearshift.training.storage import Storage, write_file
from gearshift.training.train_plan import TrainPlan, solve

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.models.base import Split
    from gearshift.training.checkpoint.base_weights import BaseWeights
    from gearshift.training.checkpoint.resume_point import ResumePoint
    from gearshift.training.data.samples import MicroBatch
    from gearshift.training.evaluation.evaluate_split import SplitResult


@dataclass
class Rank:
    """What a rank has prepared, to train or to evaluate."""

    job: RunPlan
    settings: Settings
    """Records those that are read: TrackedSettings."""
    world: World
    storage: Storage
    tasks: Sequence[Task]
    """One for each experience; the first builds the model."""
    samples: Samples
    """Of training."""
    facts: dict[str, Any]
    """Of each checkpoint, and what a resumed run is compared with."""
    resumed: ResumePoint | None
    peaks: PeakMemory
    model: Module
    built: Architecture
    engine: Engine
    module: Module
    unused: Sequence[torch.Tensor]
    """Optimizer state, which no loader worker needs."""

    def batches_of(self, samples: Samples, limit: int | None = None) -> EvaluationBatches:
        """The batches of a split. Raises DataError if it is empty."""
        micro_batch = self.job.resolved.batching.micro_batch
        loader = self.settings.loader
        return EvaluationBatches(samples, micro_batch, self.world, loader, self.unused, limit=limit)

    def test(self) -> EvaluationBatches | None:
        """The split to evaluate: that of the job, or the test split at the end of the training."""
        split = self.job.split or (TEST if self.settings.eval.test else None)
        if not split:
            return None
        from gearshift.training.evaluation.evaluate_split import samples_of

        return self.batches_of(samples_of(self.tasks[0], split, self.settings.train.seed))


def work(job: RunPlan) -> Outcome | SplitResult:
    """Train one rank of `job`, or evaluate its split. Collective.

    Raises SettingsError, DataError and EngineError for invalid input, which the user can fix.
    """
    with ExitStack() as cleanup:
        try:
            rank = _prepare(job, cleanup)
            test = rank.test()
            if job.split is None or not test:
                return _train(rank, test)
            from gearshift.training.evaluation.evaluate_split import evaluate_split

            metric = rank.settings.eval.metric
            return evaluate_split(rank.tasks[0], rank.module, job.split, test, rank.world, metric)
        except SettingError as error:
            from gearshift.launcher.config.errors import about_setting

            raise SettingsError([about_setting(error, job.resolved)]) from error


def _prepare(job: RunPlan, cleanup: ExitStack) -> Rank:
    """What training and evaluating both need: data, model, engine, and the resumed state."""
    trains = job.split is None
    settings = cast(Settings, TrackedSettings(_settings(job)))
    world = _open_world(job.resolved, settings, cleanup)
    storage = _open_storage(job, world, cleanup)
    peaks = PeakMemory()  # before the data and the model, so that they count

    # The data, and the checkpoint to resume from, which must be of the same data.
    files = _file_digests(_settings(job), world)
    resumed = None
    if job.resume:
        from gearshift.launcher.run_folder.checkpoint_search import load_resume_point

        resumed = load_resume_point(job.resume, job.number, files, world, storage.path)
    tasks, train_split = load_data(job, settings, storage.path, world, resumed)
    task = tasks[0]
    if settings.train.least_steps is not None:
        job = _fitted(job, len(task.data("train") if job.number else train_split), storage, world)
        settings = cast(Settings, check.retracked(_tracked(settings), _settings(job)))
    samples = Samples(task, train_split, settings.train.seed)
    check_fills(job.resolved, len(samples))
    seed = settings.train.seed
    facts: dict[str, Any] = {
        "settings": paths.kept_values(job.resolved.values),
        "data": {
            "samples": len(samples),
            "fingerprint": fingerprint(samples, world),
            "validation": fingerprint(Samples(task, task.data("val"), seed), world),
            "files": files,
            "global_batch": job.resolved.batching.global_batch,
            "seed": seed,
        },
        "experience": job.number,
    }
    if resumed:
        resumed.check_data(facts["data"])
        if not trains:
            _check_labels(task, resumed)

    # The model and its engine.
    model, initial, base = _build_model(job, settings, task, resumed, world)
    if trains:
        _check_room(job, storage, task, model, world)
    built = architecture(model)  # before the engine shards its parameters
    if task.channels_last:
        cleanup.callback(tune_convolutions())
    name = job.resolved.settings.engine.name
    engine, module = _prepare_engine(job, settings, storage, task, name, model, world)
    cleanup.push(partial(_unless_failed, world, engine.close))
    if initial and (not resumed or (base and base.frozen)):
        from gearshift.engines import deferred_init

        deferred_init.write(initial, engine)
    if base:
        engine = base.left_out(engine)
        facts |= base.facts
    if job.resume and resumed:
        from gearshift.launcher.run_folder.checkpoint_search import restore_state

        restore_state(job.resume, resumed, storage, engine, trains=trains)
    unused: list[torch.Tensor] = []
    for piece in engine.state().pieces:
        if piece.kind != WEIGHT:
            unused += stored(piece.data)

    return Rank(
        job=job,
        settings=settings,
        world=world,
        storage=storage,
        tasks=tasks,
        samples=samples,
        facts=facts,
        resumed=resumed,
        peaks=peaks,
        model=model,
        built=built,
        engine=engine,
        module=module,
        unused=unused,
    )


def _train(rank: Rank, test: EvaluationBatches | None) -> Outcome:
    """Train on the prepared data, and evaluate `test` at the end. Collective."""
    job = rank.job
    settings = rank.settings
    world = rank.world
    resumed = rank.resumed
    task = rank.tasks[0]
    if not job.number and isinstance(task, HasFrozenEncoder) and _caches_features(rank, task):
        rank.samples = Samples(task, task.data("train"), settings.train.seed)
    samples = rank.samples
    global_batch = job.resolved.batching.global_batch
    resume = job.resume
    fits = resumed.fits if resumed else []
    time_s = None
    if resume and resume.until is not None:  # a replay, as long as its run
        fits = resume.fits
    elif settings.train.time is not None and not job.experience:
        from gearshift.launcher.run import time_limit  # for runs with a budget of time

        if resumed and resume and resume.step is None:  # else the user goes back, for other steps
            lost_s = time_limit.lost_s(rank.storage.path, resumed.step)
            resumed = replace(resumed, lost_s=lost_s)
        time_s = time_limit.budget_s(settings.train.time, resumed.wall_s if resumed else 0.0)
    order = order_of(samples.split, global_batch, settings.train.seed)
    train_plan = _train_plan(rank, order, resumed, time_s)
    held_out = _held_out(rank)
    info = callbacks.run_info(
        job,
        rank.tasks,
        rank.built,
        len(samples),
        held_out.counts(),
        rank.storage.path,
        world.device,
    )
    save = settings.save
    writer = CheckpointWriter(
        rank.storage,
        world,
        job.resolved.settings.engine.name,
        Keep(save.keep_last, save.keep_best, train_plan.keep_every, train_plan.keep_at),
        save.async_,
        info.environment["libraries"],
    )
    listeners = callbacks.build(job, settings, rank.storage, world, info)
    trace = None
    if job.trace is not None:
        from gearshift.training.trace import Trace  # of replays

        trace = Trace(job.trace, train_plan.first_step, task, rank.model, rank.engine)
        listeners.append(trace)
    run = TrainingRun(
        settings,
        train_plan,
        listeners,
        held_out,
        writer,
        rank.facts | {run_folder.SURROUNDINGS: callbacks.surroundings(info.environment, task)},
        resumed,
        rank.peaks,
        test,
        fits,
    )
    # Everything that reads settings is built by now.
    check.check_before_training(job.resolved, train_plan, _tracked(settings), world.rank == 0)
    if world.rank == 0:
        _prepare_folder(rank, train_plan)
        if job.resume:
            retention.prune(rank.storage, writer.keep)
    world.wait_for_all()
    batches = Batches(samples, order, train_plan, world, settings.loader, rank.unused)
    if trace is not None:
        batches.taken = trace.begin
    try:
        return train(task, rank.engine, rank.module, batches, run)
    except SettingError:  # as of a budget of time that is too short: nothing is left of the start
        if world.rank == 0 and not job.resume:
            run_folder.clear(rank.storage.path)
        raise
    except Exception as error:
        if run.passes is not None and run.step == train_plan.first_step:
            _refuse(error, rank, run.passes)
        raise


def _refuse(error: Exception, rank: Rank, passes: Sequence[MicroBatch]) -> None:
    """Raise EngineError if `error`, of passes before the first update, is one of the engine."""
    from gearshift.launcher.run.engine_error import refusal

    job = rank.job
    task = rank.tasks[0]
    refused = refusal(
        error,
        job.resolved.settings.engine.name,
        rank.world,
        task,
        [micro_batch.batch for micro_batch in passes],
        job.resolved.batching.micro_batch,
        rank.built.parameters,
        partial(_prepare_engine, job, rank.settings, rank.storage, task, by_processes(1)),
    )
    if refused is not None:
        raise refused from error


def _train_plan(
    rank: Rank,
    order: DataOrder,
    resumed: ResumePoint | None,
    time_s: float | None,
) -> TrainPlan:
    """The solved numbers of the run, with the shares of its ranks."""
    job = rank.job
    settings = rank.settings
    world = rank.world
    task = rank.tasks[0]
    train_plan = solve(
        settings,
        samples=order.length,
        global_batch=order.global_batch,
        micro_batch=job.resolved.batching.micro_batch,
        world_size=world.size,
        units=task.units,
        flops_per_sample=task.flops_per_sample(rank.model),
        first_step=resumed.step if resumed else 0,
        starts=resumed.starts if resumed else None,
        until=job.resume.until if job.resume else None,
        experience=job.number,
        time_s=time_s,
    )
    if world.size > 1 and settings.engine.shares != "equal":
        from gearshift.training.shares import with_shares

        measured = resumed.fact("shares", ()) if resumed else ()
        if job.resume and train_plan.until is not None:
            measured = job.resume.shares
        train_plan = with_shares(train_plan, settings.engine.shares, measured)
    return train_plan


def _check_labels(task: Task, resumed: ResumePoint) -> None:
    """Raise DataError if the data to evaluate lacks the labels of the run."""
    labels = resumed.fact("evaluator", {}).get("metrics", {})
    if labels and task.goal.metric not in labels:
        raise DataError(
            f"the data lacks labels: {', '.join(labels)}",
            where="data.path",
            allowed="data with the labels of the run",
        )


def load_data(
    job: RunPlan, settings: Settings, folder: Path, world: World, resumed: ResumePoint | None
) -> tuple[Sequence[Task], Split]:
    """A task for each experience, the newest last, and the training data.

    The first task builds the model. Of a run that does not learn continually it is one task.
    Collective.
    """
    is_reset = job.resume is not None and "data" in job.resume.reset
    earlier = None
    if world.rank == 0:
        values = {key: setting.value for key, setting in job.resolved.values.items()}
        before = resumed.fact("settings", {}) if resumed and is_reset else None
        earlier = earlier_sides(folder, values, before)
    context = Context(
        seed=settings.train.seed,
        eval_share=settings.eval.share,
        folder=folder,
        device=world.device,
        attention=settings.memory.attention,
        reset_data=is_reset,
        earlier_splits=_shared(earlier, world) or None,
        open_checkpoint=CheckpointWeights,
        write_file=write_file,
    )
    sections: Any = settings  # of the family
    with signals.deferred():
        build_task = task_class(sections.model.family)
    task = build_task(sections.model, sections.data, context)
    world.rank_0_first(task.setup)
    check.check_splits(task, folder)
    if not job.experience or not job.number:
        return [task], task.data("train")
    from gearshift.launcher.run.experience import load_experience

    return load_experience(job.experience, task, context, job.resolved.settings, world)


def _held_out(rank: Rank) -> HeldOut:
    """The held-out data of all tasks.

    The chance of a noise control is that of the whole split. Raises DataError if a split is empty.
    """
    settings = rank.settings
    parts = []
    for task in rank.tasks:
        samples = Samples(task, task.data("val"), settings.train.seed)
        limit = None if task.facts().get("control") else settings.eval.samples
        parts.append(HeldOutPart(task, rank.batches_of(samples, limit)))
    return HeldOut(parts, rank.job.number)


def _caches_features(rank: Rank, task: Task) -> bool:
    """Whether the samples of `task` are cached outputs of its frozen encoder from now on."""
    from gearshift.models.common.data_files import cache_folder  # for tasks with such an encoder
    from gearshift.training.data import feature_cache

    settings = rank.settings

    def show(text: str) -> None:
        if rank.world.rank == 0:
            print(text, file=sys.stderr, flush=True)

    return feature_cache.use(
        task,
        rank.model,
        rank.module,
        rank.engine,
        settings.feature_cache,
        cache_folder(),
        {
            "precision": settings.precision,
            "compile": settings.compile,
            "attention": settings.memory.attention,
        },
        show,
    )


def _file_digests(settings: Settings, world: World) -> dict[str, str] | None:
    """The digests of the data files, which rank 0 reads; None: built-in data. Collective."""
    files = paths.data_paths(settings)
    if not files:
        return None
    digests = None
    if world.rank == 0:
        from gearshift.launcher.run_folder.file_records import data_digests  # for runs on files

        digests = data_digests(files)
    return _shared(digests, world)


def _shared(value: Any, world: World) -> Any:
    """The JSON that rank 0 has, on all ranks. Collective."""
    return json.loads(world.broadcast(json.dumps(value).encode()))


def _build_model(
    job: RunPlan, settings: Settings, task: Task, resumed: ResumePoint | None, world: World
) -> tuple[Module, dict[str, torch.Tensor], BaseWeights | None]:
    """The model, its initial weights, and its base, which checkpoints leave out. Collective."""
    seeds.seed_weights(settings.train.seed)
    make = partial(with_dense_tensors, task.build)
    initial: dict[str, torch.Tensor] = {}
    if world.size == 1:
        model = make()
    else:
        from gearshift.engines import deferred_init

        model, initial = deferred_init.build(make, world)
    check_parameters(
        model,
        task.blocks(model),
        job.resolved.settings.engine.name,
        world.size,
        tensor_file.DTYPES,
        world.device.type,
    )
    base = None
    if isinstance(task, HasBaseWeights) and task.base_folder() is not None:
        from gearshift.training.checkpoint import base_weights

        base = base_weights.find(task, model, world)
    if base and resumed:
        base.check(resumed.checkpoint)
    return model, initial, base


def _check_room(job: RunPlan, storage: Storage, task: Task, model: Module, world: World) -> None:
    """Raise SettingsError on every rank if the disk has no room for a checkpoint. Collective."""
    settings = job.resolved.settings
    save = settings.save
    if not save.required or not (save.last or save.every or save.keep_best):
        return
    lack = None
    if world.rank == 0:
        needed = retention.checkpoint_bytes(model, settings, only_trained=_has_adapters(task))
        lack = retention.lacking(storage.path, needed)
    lack = first_error(world, lack)
    if lack:
        raise SettingError(
            "save.required",
            True,
            f"needs room for a checkpoint: {lack}",
            "a folder on a disk with room, see --out; or false, which only warns",
        )


def _tracked(settings: Settings) -> TrackedSettings:
    return cast(TrackedSettings, settings)


def _has_adapters(task: Task) -> bool:
    return isinstance(task, HasBaseWeights) and task.has_adapters


def _settings(job: RunPlan) -> Settings:
    """The settings of the ranks: those of the run, or of its experience."""
    if not job.experience:
        return cast(Settings, job.resolved.settings)
    from gearshift.launcher.run.experience import resolve_experience

    return cast(Settings, resolve_experience(job.resolved, job.experience).settings)


def _open_world(resolved: Resolved, settings: Settings, cleanup: ExitStack) -> World:
    if settings.train.deterministic:
        before = torch.are_deterministic_algorithms_enabled()
        cleanup.callback(torch.use_deterministic_algorithms, before)
        seeds.make_deterministic(environment.variables())
    if settings.train.debug:
        cleanup.enter_context(torch.autograd.set_detect_anomaly(True))
    if settings.memory.return_freed:
        return_freed()
    always_group = find(resolved.settings.engine.name).always_group
    device = resolved.device if settings.device == "auto" else settings.device
    timeout_s = 0.0
    if resolved.world_size > 1 or always_group:
        timeout_s = settings.engine.timeout_s
    world = open_world(device, timeout_s, always_group, consistency_facts(resolved))
    cleanup.push(partial(_unless_failed, world, world.close))
    threads = settings.engine.threads
    if threads:
        cleanup.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
    return world


def _fitted(job: RunPlan, samples: int, storage: Storage, world: World) -> RunPlan:
    """`job` with the batch for the first data of its run; rank 0 records it in the run folder."""
    from gearshift.launcher.config.fitted_batch import fitted

    job = replace(job, resolved=fitted(job.resolved, samples))
    if world.rank == 0 and not job.resume:  # a resumed run records its settings as it begins
        run_folder.rewrite_settings(storage, job.resolved)
    if world.rank == 0 and job.experience and job.number:
        from gearshift.launcher.run.experience import record_settings

        record_settings(job.resolved, job.experience)
    return job


def _unless_failed(
    world: World, close: Callable[[], None], error: type[BaseException] | None, *_: object
) -> None:
    """Leave a process group, unless this rank failed: with NCCL it would wait for the others.

    A rank that failed saves its report and ends at once instead, which they notice.
    """
    if not error or world.size == 1:
        close()


def _open_storage(job: RunPlan, world: World, cleanup: ExitStack) -> Storage:
    """The storage of the run folder, locked by rank 0, and claimed if the run belongs to a job."""
    assert job.folder or world.rank, "rank 0 created it before the ranks started"
    # Ranks started by torchrun or srun do not know its name, which contains the time.
    name = world.broadcast(os.fsencode(job.folder.absolute()) if job.folder else b"")
    path = job.folder or Path(os.fsdecode(name))
    storage = Storage(path)
    generation = job.generation
    if world.rank == 0:
        cleanup.enter_context(lock.hold(path, generation=generation))
        if job.resume:
            run_folder.remove_abandoned(path)
    if generation:
        from gearshift.launcher.run_folder import generations

        if world.rank == 0:
            generations.take_over(path, generation)
        storage = cleanup.enter_context(generations.fencing(path, generation))
    world.wait_for_all()  # no rank reads the folder before
    return storage


def _prepare_engine(
    job: RunPlan,
    settings: Settings,
    storage: Storage,
    task: Task,
    name: str,
    model: Module,
    world: World,
) -> tuple[Engine, Module]:
    blocks = task.blocks(model)
    spec = optimizer.spec(settings, model, world, blocks, task)
    options = engine_options(settings, job.resolved, task.channels_last)
    if job.split is None and not _has_adapters(task):
        options = replace(options, frozen_folder=storage.path)
    with signals.deferred():  # imports DeepSpeed or FairScale
        engine = build_engine(name, world, options)
    with world.connecting():
        module = engine.prepare(model, spec, blocks)
    return engine, module


def _prepare_folder(rank: Rank, train_plan: TrainPlan) -> None:
    """Record the start of a job, and make the folder of a resumed run as it was. For rank 0."""
    job = rank.job
    storage = rank.storage
    if job.generation:
        from gearshift.launcher.run_folder.generations import record_start

        step = rank.resumed.step if rank.resumed else 0
        record_start(storage, job.generation, step, rank.world.size)
    if job.resume:
        from gearshift.launcher.run_folder.checkpoint_search import prepare_folder

        prepare_folder(
            job.resume,
            job.resolved,
            storage,
            rank.resumed,
            is_end=train_plan.first_step >= train_plan.end_step,
        )


_PER_MACHINE = ("engine.nproc", "engine.threads", "engine.bind_cores", "loader.", "limits.")
"""Settings that may differ between machines: ranks, cores, memory."""


def consistency_facts(resolved: Resolved) -> dict[str, str]:
    """Rank consistency check: settings as JSON, which the rendezvous compares between ranks.

    Ranks with different settings would wait for each other in collectives.
    """
    return {
        key: json.dumps(value.value, default=str)
        for key, value in resolved.values.items()
        if not key.startswith(_PER_MACHINE)
    }
