"""The training of one rank: world, data, model, engine, callbacks, loop."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from gearshift.engines import deferred_init
from gearshift.engines.base import Engine, World
from gearshift.engines.catalog import build_engine, find
from gearshift.engines.device import return_freed
from gearshift.engines.parameters import check_parameters, with_dense_tensors
from gearshift.engines.preparation import tune_convolutions
from gearshift.engines.state import WEIGHT, stored
from gearshift.engines.world import open_world
from gearshift.launcher.base import environment, signals
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config import check, paths
from gearshift.launcher.config.batching import check_fills
from gearshift.launcher.config.check import TrackedSettings
from gearshift.launcher.config.engine_options import engine_options
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import Settings, task_class
from gearshift.launcher.run import callbacks, run_end
from gearshift.launcher.run_folder import lock, run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.base import Context, DataError, HasBaseWeights, HasFrozenEncoder, Task
from gearshift.training import seeds
from gearshift.training.agreement import first_error
from gearshift.training.callbacks.base import TEST, Outcome
from gearshift.training.checkpoint import retention, room, tensor_file
from gearshift.training.checkpoint.manifest import CheckpointDamaged, CheckpointSetAside
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.data.loader import Batches, EvaluationBatches
from gearshift.training.data.samples import DataOrder, Samples, fingerprint
from gearshift.training.data.workers import DataWatchdog
from gearshift.training.evaluation.evaluate import (
    HeldOut,
    HeldOutPart,
    SplitResult,
    evaluate_split,
    samples_of,
)
from gearshift.training.inspection import architecture
from gearshift.training.loop import train
from gearshift.training.optim import optimizer
from gearshift.training.resources.memory import PeakMemory
from gearshift.training.run_state import TrainingRun
from gearshift.training.settings import SettingError
from gearshift.training.storage import Storage
from gearshift.training.train_plan import TrainPlan, solve

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.models.base import Split, SplitName
    from gearshift.training.checkpoint.base_weights import BaseWeights
    from gearshift.training.checkpoint.resume_point import ResumePoint


def work(job: RunPlan) -> Outcome | SplitResult:
    """Train one rank of `job`, or evaluate its split. Collective.

    Raises SettingsError, DataError and EngineError for invalid input, which the user can fix.
    """
    with ExitStack() as cleanup:
        try:
            return _work(job, cleanup)
        except SettingError as error:
            from gearshift.launcher.config.errors import about_setting

            raise SettingsError([about_setting(error, job.resolved)]) from error


def _work(job: RunPlan, cleanup: ExitStack) -> Outcome | SplitResult:
    given = _settings(job)
    number = job.number
    resumed = None
    tracked = TrackedSettings(given)
    settings = cast(Settings, tracked)
    world = _open_world(job.resolved, settings, cleanup)
    storage = _open_storage(job, world, cleanup)
    watchdog = DataWatchdog(settings.engine.timeout_s, partial(run_end.exit_hung, job, world.rank))
    cleanup.callback(watchdog.close)
    peaks = PeakMemory()  # before the data and the model, so that they count
    files = _file_digests(given, world)
    if job.resume is not None:
        from gearshift.launcher.run_folder.checkpoint_search import load_resume_point

        known = {"experience": number, "data": {"files": files}}
        resumed = load_resume_point(job.resume, known, world, storage.path)
    tasks, train_split = load_data(job, settings, storage.path, world, resumed)
    task = tasks[0]
    if settings.train.least_steps is not None:
        job = _fitted(job, len(task.data("train") if number else train_split), storage, world)
        tracked = check.retracked(tracked, _settings(job))
        settings = cast(Settings, tracked)
    resolved = job.resolved
    seed = settings.train.seed
    micro_batch = job.resolved.batching.micro_batch
    samples = Samples(task, train_split, seed)
    split = TEST if settings.eval.test and job.split is None else job.split
    evaluated = None if split is None else samples_of(task, split, seed)
    check_fills(resolved, len(samples))
    order = DataOrder(len(samples), resolved.batching.global_batch, seed)
    facts: dict[str, Any] = {  # of a checkpoint, and what a resumed run is compared with
        "settings": paths.kept_values(resolved.values),
        "data": {
            "samples": len(samples),
            "fingerprint": fingerprint(samples, world),
            "validation": fingerprint(Samples(task, task.data("val"), seed), world),
            "files": files,
            "global_batch": order.global_batch,
            "seed": seed,
        },
        "experience": number,
    }
    if resumed is not None:
        resumed.check_data(facts["data"])
        labels = resumed.fact("evaluator", {}).get("metrics", {})
        if job.split is not None and labels and task.goal.metric not in labels:
            allowed = "data with the labels of the run"
            raise DataError(
                f"the data lacks labels: {', '.join(labels)}", where="data.path", allowed=allowed
            )
    model, initial, base = _build_model(job, settings, storage, task, resumed, world)
    built = architecture(model)  # before the engine shards its parameters
    if task.channels_last:
        cleanup.callback(tune_convolutions())
    engine, module = _prepare_engine(job, settings, storage, task, model, world)
    cleanup.push(partial(_unless_failed, world, engine.close))
    if resumed is None or (base is not None and base.frozen):
        deferred_init.write(initial, engine)
    if base is not None:
        engine = base.left_out(engine)
        facts = {**facts, **base.facts}
    if resumed is not None:
        _restore(job, storage, resumed, engine)
    # Without the optimizer state, which no loader worker needs.
    slots = [piece.data for piece in engine.state().pieces if piece.kind != WEIGHT]
    loading = (world, settings.loader, watchdog, [part for slot in slots for part in stored(slot)])
    test = None if evaluated is None else EvaluationBatches(evaluated, micro_batch, *loading)
    if job.split is not None:
        assert test is not None
        return evaluate_split(task, module, job.split, test, world, settings.eval.metric)
    is_cached = not number and isinstance(task, HasFrozenEncoder)
    if is_cached and _caches_features(settings, task, model, module, engine):
        samples = Samples(task, task.data("train"), seed)
    train_plan = solve(
        settings,
        samples=order.length,
        global_batch=order.global_batch,
        micro_batch=micro_batch,
        world_size=world.size,
        units=task.units,
        flops_per_sample=task.flops_per_sample(model),
        first_step=resumed.step if resumed else 0,
        starts=resumed.starts if resumed else None,
        until=job.resume.until if job.resume else None,
        experience=number,
    )
    held_out = _held_out(tasks, number, settings, micro_batch, loading)
    info = callbacks.run_info(
        job, tasks, built, len(samples), held_out.counts(), storage.path, world.device
    )
    called = callbacks.build(job, settings, storage, world, info)
    save = settings.save
    keep = Keep(save.keep_last, save.keep_best, train_plan.keep_every, train_plan.keep_at)
    writer = CheckpointWriter(storage, world, resolved.settings.engine.name, keep, save.async_)
    run = TrainingRun(settings, train_plan, called, held_out, writer, facts, resumed, peaks, test)
    check.check_before_training(resolved, train_plan, tracked, prints=world.rank == 0)
    if world.rank == 0:
        _prepare_folder(job, storage, resumed, train_plan, world)
    world.wait_for_all()
    return train(task, engine, module, Batches(samples, order, train_plan, *loading), run)


def _restore(job: RunPlan, storage: Storage, resumed: ResumePoint, engine: Engine) -> None:
    """Load the checkpoint. Collective. Raises CheckpointError, after which the engine is of no use."""
    from gearshift.launcher.run_folder.checkpoint_search import set_damaged_aside
    from gearshift.training.checkpoint.restore import restore

    keeps_slots = job.split is None and "optimizer" not in resumed.reset
    try:
        restore(
            resumed.checkpoint,
            engine,
            keeps_slots,
            WEIGHT if job.split is None else tensor_file.EMA,
        )
    except CheckpointDamaged as error:
        assert job.resume is not None
        if set_damaged_aside(job.resume, storage, resumed, engine.world):
            raise CheckpointSetAside(
                f"{error}; it was renamed, and the one before it is used"
            ) from error
        raise


def load_data(
    job: RunPlan, settings: Settings, folder: Path, world: World, resumed: ResumePoint | None
) -> tuple[Sequence[Task], Split]:
    """A task for each experience, the newest last, of which the first builds the model; training data.

    Of a run that does not learn continually it is one task. Collective.
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
    check.check_splits(task, folder)
    if job.experience is None or not job.number:
        return [task], task.data("train")
    from gearshift.launcher.run.experience import load_experience

    return load_experience(job.experience, task, context, job.resolved.settings, world)


_OF_SPLIT = ("eval.share", "train.seed", "data.split_seed", "data.fold", "data.split")
"""Settings by which groups are drawn; if one of them changes, all groups are drawn again."""


def _earlier_splits(
    resolved: Resolved, folder: Path, world: World, reset: ResumePoint | None
) -> dict[str, SplitName] | None:
    """The splits of groups that the data of an earlier start had, which they keep. Collective.

    Of the run in `folder`, if its data is `reset` and its groups are drawn as before; or of the run
    whose weights a new run starts with: none of its training groups may validate. Rank 0 reads.
    """
    from gearshift.models.common.split import SPLIT_FILE, load_sides

    values = {key: setting.value for key, setting in resolved.values.items()}
    earlier: dict[str, SplitName] = {}
    if world.rank == 0:
        earlier = load_sides(folder, only_earlier=True)
        before = None if reset is None else reset.fact("settings", {})
        if before is not None and all(before.get(k) == values.get(k) for k in _OF_SPLIT):
            earlier |= load_sides(folder)
        start = values.get("model.start")
        is_new = not (folder / SPLIT_FILE).exists()
        if start is not None and is_new and values.get("data.fold") is None:
            path = Path(start).expanduser()
            runs = (p for p in (path, *path.parents[:3]) if (p / SPLIT_FILE).is_file())
            earlier = next(map(load_sides, runs), {})
    return json.loads(world.broadcast(json.dumps(earlier).encode())) or None


def _held_out(
    tasks: Sequence[Task], number: int, settings: Settings, micro_batch: int, loading: Sequence[Any]
) -> HeldOut:
    """The held-out data of all tasks in experience `number`.

    The chance of a noise control is that of the whole split. Raises DataError if a split is empty.
    """
    parts = []
    for task in tasks:
        samples = Samples(task, task.data("val"), settings.train.seed)
        limit = None if task.facts().get("control") else settings.eval.samples
        parts.append(
            HeldOutPart(task, EvaluationBatches(samples, micro_batch, *loading, limit=limit))
        )
    return HeldOut(parts, number)


def _caches_features(
    settings: Settings, task: Task, model: Module, module: Module, engine: Engine
) -> bool:
    """Whether the samples of `task` are cached outputs of its frozen encoder from now on."""
    from gearshift.models.common.data_files import cache_folder  # for tasks with such an encoder
    from gearshift.training.data import feature_cache

    computed = {key: getattr(settings, key) for key in ("precision", "compile")}
    computed["attention"] = settings.memory.attention

    def show(text: str) -> None:
        if engine.world.rank == 0:
            print(text, file=sys.stderr, flush=True)

    given = settings.feature_cache, cache_folder(), computed, show
    return feature_cache.use(task, model, module, engine, *given)


def _file_digests(settings: Settings, world: World) -> dict[str, str] | None:
    """The digests of the data files, which rank 0 reads; None: built-in data. Collective."""
    named = paths.data_paths(settings)
    digests: dict[str, str] | None = None

    def read() -> None:
        from gearshift.launcher.run_folder.file_records import data_digests  # for runs on files

        nonlocal digests
        digests = data_digests(named) if world.rank == 0 else None

    if named:
        world.rank_0_first(read)
        digests = json.loads(world.broadcast(json.dumps(digests).encode()))
    return digests


def _build_model(
    job: RunPlan,
    settings: Settings,
    storage: Storage,
    task: Task,
    resumed: ResumePoint | None,
    world: World,
) -> tuple[Module, dict[str, torch.Tensor], BaseWeights | None]:
    """The model, its initial weights, and its base, which checkpoints leave out. Collective.

    Raises SettingsError on every rank if the disk of the run folder has no room for a checkpoint.
    """
    seeds.seed_weights(settings.train.seed)
    model, initial = deferred_init.build(partial(with_dense_tensors, task.build), world)
    engine_name = job.resolved.settings.engine.name
    check_parameters(model, task.blocks(model), engine_name, world.size, tensor_file.DTYPES)
    base = None
    if isinstance(task, HasBaseWeights) and task.base_folder() is not None:
        from gearshift.training.checkpoint import base_weights

        base = base_weights.find(task, model, world)
    if base is not None and resumed is not None:
        base.check(resumed.checkpoint)
    save = job.resolved.settings.save
    lack = None
    if (
        job.split is not None
        or not save.required
        or not (save.last or save.every or save.keep_best)
    ):
        return model, initial, base
    if world.rank == 0:
        is_there = (storage.path / retention.CHECKPOINTS).is_dir()
        folder = storage.path / retention.CHECKPOINTS if is_there else storage.path
        needed = room.checkpoint_bytes(
            model, job.resolved.settings, only_trained=_has_adapters(task)
        )
        lack = room.lacking(folder, needed)
    if text := first_error(world, lack):
        raise SettingsError.of(
            f"there is no room for a checkpoint: {text}",
            value=str(storage.path),
            where=f"the run folder {storage.path}",
            allowed="a disk with room for one checkpoint at least",
            fix="free some space, or choose another folder with  --out DIR",
        )
    return model, initial, base


def _has_adapters(task: Task) -> bool:
    return isinstance(task, HasBaseWeights) and task.has_adapters


def _settings(job: RunPlan) -> Settings:
    """The settings of the ranks: those of the run, or of its experience."""
    if job.experience is None:
        return cast(Settings, job.resolved.settings)
    from gearshift.launcher.run.experience import resolve_experience

    return cast(Settings, resolve_experience(job.resolved, job.experience).settings)


def _open_world(resolved: Resolved, settings: Settings, cleanup: ExitStack) -> World:
    if settings.train.deterministic:
        before = torch.are_deterministic_algorithms_enabled()
        only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
        cleanup.callback(torch.use_deterministic_algorithms, before, warn_only=only_warns)
        for name in ("deterministic", "benchmark"):
            cleanup.callback(
                setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name)
            )
        seeds.make_deterministic(environment.variables())
    if settings.train.debug:
        cleanup.enter_context(torch.autograd.set_detect_anomaly(True))
    if settings.memory.return_freed:
        return_freed()
    always_group = find(resolved.settings.engine.name).always_group
    device = settings.device if settings.device != "auto" else resolved.device
    world = open_world(device, settings.engine.timeout_s, always_group, consistency_facts(resolved))
    cleanup.push(partial(_unless_failed, world, world.close))
    if (threads := settings.engine.threads) is not None:
        cleanup.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
    return world


def _fitted(job: RunPlan, samples: int, storage: Storage, world: World) -> RunPlan:
    """`job` with the batch for the first data of its run; rank 0 records it in the run folder."""
    from gearshift.launcher.config.batching import fitted

    job = replace(job, resolved=fitted(job.resolved, samples))
    if world.rank == 0 and job.resume is None:  # a resumed run records its settings as it begins
        run_folder.rewrite_settings(storage, job.resolved)
    if world.rank == 0 and job.experience is not None and job.number:
        from gearshift.launcher.run.experience import record_settings

        record_settings(job.resolved, job.experience)
    return job


def _unless_failed(
    world: World, close: Callable[[], None], error: type[BaseException] | None, *_: object
) -> None:
    """Leave a process group, unless this rank failed: with NCCL it would wait for the others.

    A rank that failed saves its report and ends at once instead, which they notice.
    """
    if error is None or world.size == 1:
        close()


def _open_storage(job: RunPlan, world: World, cleanup: ExitStack) -> Storage:
    """The storage of the run folder, locked by rank 0, and claimed if the run belongs to a job."""
    assert job.folder is not None or world.rank, "rank 0 created it before the ranks started"
    # Ranks started by torchrun or srun do not know its name, which contains the time.
    name = world.broadcast(os.fsencode(job.folder.absolute()) if job.folder else b"")
    path = job.folder if job.folder and not world.rank else Path(os.fsdecode(name))
    storage = Storage(path)
    generation = job.generation
    if world.rank == 0:
        cleanup.enter_context(lock.hold(path, generation=generation))
    if generation is not None:
        from gearshift.launcher.run_folder import generations

        if world.rank == 0:
            generations.take_over(path, generation)
        storage = cleanup.enter_context(generations.fencing(path, generation))
    world.barrier()  # no rank reads the folder before
    return storage


def _prepare_engine(
    job: RunPlan, settings: Settings, storage: Storage, task: Task, model: Module, world: World
) -> tuple[Engine, Module]:
    blocks = task.blocks(model)
    spec = optimizer.spec(settings, model, world, blocks, task)
    frozen_folder = None if _has_adapters(task) or job.split is not None else storage.path
    options = engine_options(settings, job.resolved, task.channels_last)
    options = replace(options, frozen_folder=frozen_folder)
    with signals.deferred():  # imports DeepSpeed or FairScale
        engine = build_engine(job.resolved.settings.engine.name, world, options)
    return engine, engine.prepare(model, spec, blocks)


def _prepare_folder(
    job: RunPlan, storage: Storage, resumed: ResumePoint | None, train_plan: TrainPlan, world: World
) -> None:
    """Record the start of a job, and make the folder of a resumed run as it was. For rank 0."""
    if job.generation is not None:
        from gearshift.launcher.run_folder.generations import record_start

        record_start(storage, job.generation, resumed.step if resumed else 0, world.size)
    if job.resume is not None:
        from gearshift.launcher.run_folder.checkpoint_search import prepare_folder

        is_end = train_plan.first_step >= train_plan.end_step
        prepare_folder(job.resume, job.resolved, storage, resumed, is_end=is_end)


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
