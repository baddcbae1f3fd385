"""The plan of a run: its memory, traffic and operations, predicted without a device."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from operator import itemgetter, truediv
from time import monotonic
from typing import TYPE_CHECKING, Any

import psutil
import torch
import torch.distributed as dist

from gearshift.engines.base import EngineError, Options
from gearshift.engines.catalog import ENGINES, Entry, build_engine, by_processes
from gearshift.engines.environment import RankInfo
from gearshift.engines.precision import DTYPES
from gearshift.engines.world import ProcessWorld
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.base.temporary import temporary_folder
from gearshift.launcher.config import batching, fitted_batch
from gearshift.launcher.config.adapt import engine_options
from gearshift.launcher.config.errors import about_data, about_setting
from gearshift.launcher.config.provenance import Batching, Resolved
from gearshift.launcher.config.resolve import fetch_data, fetch_weights
from gearshift.launcher.config.schema import config_of, task_with_data
from gearshift.launcher.plan.placement import FP32_BYTES, Placed, as_traced, replicated, zero
from gearshift.launcher.plan.step_trace import (
    UNTRACED_ERRORS,
    StepTrace,
    Subject,
    build,
    cause_of,
    cleared_caches,
    copied,
    hidden_gpus,
    trace_step,
)
from gearshift.launcher.plan.storages import Kind, Storages, tensor_bytes
from gearshift.launcher.plan.target import (
    MARGIN,
    MEASURED,
    TRACED,
    UNCOMPILED,
    Described,
    PlanTarget,
)
from gearshift.models.base import Batch, DataError, HasFrozenEncoder, Task
from gearshift.training.callbacks.base import Json
from gearshift.training.data.loader import order_of
from gearshift.training.data.samples import DataOrder, MicroBatch, Samples
from gearshift.training.logging.encoding import size
from gearshift.training.settings import FeatureCache, SettingError, TrainingSettings, time_s
from gearshift.training.shares import with_shares
from gearshift.training.throughput import Gpu
from gearshift.training.train_plan import TrainPlan, solve

if TYPE_CHECKING:
    import numpy as np

HEAP = 0.6
"""Of gradients, activations and temporaries on a CPU: what glibc keeps of freed blocks, in a heap
with holes, unless `memory.return_freed` is on. Measured by benchmarks.plan_host."""
GATHERED = 1.5
"""Of all weights, under FSDP on a CPU: gloo copies what it sends, and the heap keeps the blocks of
gathered weights. Measured by benchmarks.plan_host on two ranks."""
_CPU = torch.device("cpu")
_TRIED = 8
_TRIED_S = 1.0
"""Micro-batches of which the largest is traced, and the time for them."""
_GPU_SPEEDS = (1e14, 1.5e12, 5e10, 1e10, 2e5)
_CPU_SPEEDS = (3e10, 5e9, 5e8, 5e9, 1e6)
"""What a rank does in a second, roughly: operations, bytes in memory, bytes sent, to the host and
back, and starts of kernels. Only ratios between engines count."""


_LARGE = 400e6
"""Parameters from which on the shares of the large model count: the geometric mean of the two."""
_HOST_LINK = 63e9
"""Bytes per second in one direction of PCI Express 5.0 with 16 lanes: 32 GT/s, 128b/130b."""
SHARES = {
    ("124M", "replicated"): 0.579,
    ("1.3B", "replicated"): 0.722,
    ("124M", "sharded"): 0.469,
    ("1.3B", "sharded"): 0.682,
    ("124M", "host"): 0.224,
    ("1.3B", "host"): 0.227,
}
"""FLOP/s of plain PyTorch, fully_shard and DeepSpeed with offload over those of a matrix product
on one H200, in bf16 and compiled, by parameters and by where weights, or with offload any part,
are: the measured anchors of benchmarks/gpu.py."""


@dataclass(frozen=True)
class Seconds:
    """Predicted times in seconds; None: unknown."""

    step: float | None
    epoch: float | None
    run: float | None
    basis: str
    is_least: bool = False
    """They are lower bounds."""


UNKNOWN = Seconds(None, None, None, "none: --gpu NAME uses data sheets")


@dataclass(frozen=True)
class Plan:
    """What a run needs; bytes are those of the rank, or node, with the most."""

    engine: str
    target: PlanTarget
    batching: Batching
    trace: StepTrace
    placed: Placed
    host_bytes: int
    """Of a node: the processes with what they offload, and on a CPU their peaks."""
    rank_host_bytes: int
    """Of it, one rank, without its loader workers."""
    checkpoint_bytes: int
    steps: int
    seconds: Seconds = UNKNOWN
    untraced: str | None = None
    """Why the step was measured instead of traced; None: it was traced."""
    is_compiled: bool = False
    """Whether the run is compiled, and so the plan an upper bound of its memory."""

    @property
    def device(self) -> Mapping[Kind, int]:
        """Bytes of each kind at the peak of a rank."""
        return self.placed.device

    @property
    def device_bytes(self) -> int:
        """The peak of a rank."""
        return self.placed.device_bytes

    @property
    def offloaded_bytes(self) -> int:
        """Of a rank, in host memory instead."""
        return self.placed.offloaded_bytes + self.trace.offloaded

    @property
    def copied_bytes(self) -> int:
        """To the host and back in a step."""
        return 2 * (self.placed.offloaded_bytes + self.batching.accumulation * self.trace.offloaded)

    @property
    def moved_bytes(self) -> int:
        """From and to the memory of a rank in a step, at least.

        Each micro-batch reads the weights forward and backward, and writes and reads its
        activations, those that are offloaded to the host and back twice. The update reads fp32
        gradients, and reads and writes weights and optimizer state.
        """
        weights = self.device[Kind.WEIGHTS]
        each = 2 * weights + 2 * self.device[Kind.ACTIVATIONS] + 4 * self.trace.offloaded
        update = 4 * self.trace.trainable + 2 * (weights + self.device[Kind.OPTIMIZER])
        return self.batching.accumulation * each + update

    @property
    def parameters(self) -> int:
        """Elements of all weights, those in 4 bits too."""
        return self.trace.parameters + self.trace.quantized

    @property
    def lacks_device(self) -> bool:
        """Whether the peak of a rank is more than the memory of a GPU for tensors."""
        return self.target.device_bytes is not None and self.device_bytes > self.target.device_bytes

    @property
    def lacks_ram(self) -> bool:
        """Whether the peak of a node leaves less than MARGIN of its main memory."""
        ram_bytes = self.target.ram_bytes
        return ram_bytes is not None and self.host_bytes > ram_bytes * (1 - MARGIN)

    @property
    def fits(self) -> bool | None:
        """Whether the peaks are below the memory of the target; None: it is unknown."""
        if self.lacks_device or self.lacks_ram:
            return False
        is_known = self.target.device == "cpu" or self.target.device_bytes is not None
        return True if is_known and self.target.ram_bytes is not None else None

    @property
    def cost(self) -> float:
        """Estimated seconds of a step, for comparing plans only: one part after the other."""
        speeds = _CPU_SPEEDS if self.target.device == "cpu" else _GPU_SPEEDS
        # Each micro-batch reads the weights, however small it is.
        weights = (self.batching.accumulation + 1) * self.device[Kind.WEIGHTS]
        moved = 2 * (weights + self.device[Kind.OPTIMIZER])
        trace = self.trace
        work = (trace.flops, moved, self.placed.sent_bytes, self.copied_bytes, trace.launches)
        return sum(map(truediv, work, speeds))

    @property
    def is_host_bound(self) -> bool:
        """Whether main memory decides: on a CPU, or if only that is too small."""
        return self.target.device == "cpu" or (self.lacks_ram and not self.lacks_device)

    @property
    def needs(self) -> str:
        """`3.1 GiB of 8.0 GiB` or `3.1 GiB, GPU memory unknown`, of the memory that decides."""
        if self.is_host_bound:
            return _of_memory(self.host_bytes, self.target.ram_bytes, "main")
        return _of_memory(self.device_bytes, self.target.device_bytes, "GPU")

    def as_json(self) -> Json:
        """The facts of `plan --json`."""
        peak = {"total": self.device_bytes}
        peak |= {kind.name.lower(): held for kind, held in self.device.items()}
        return {
            "engine": self.engine,
            "ranks": self.target.ranks,
            "device_memory_bytes": self.target.device_bytes,
            "device_peak_bytes": peak,
            "host_peak_bytes": self.host_bytes,
            "bytes_per_step": round(self.placed.sent_bytes),
            "checkpoint_bytes": self.checkpoint_bytes,
            "parameters": self.parameters,
            "trainable_parameters": self.trace.trainable,
            "flops_per_step": self.trace.flops * self.target.ranks,
            "global_batch": self.batching.global_batch,
            "micro_batch": self.batching.micro_batch,
            "steps": self.steps,
            "seconds": asdict(self.seconds),
            "fits": self.fits,
            "basis": TRACED if self.untraced is None else MEASURED,
            "untraced": self.untraced,
            "uncompiled": UNCOMPILED if self.is_compiled else None,
        }


def _of_memory(needed: int, limit: int | None, kind: str) -> str:
    if limit is None:
        return f"{size(needed)}, {kind} memory unknown"
    return f"{size(needed)} of {size(limit)}"


def by_data_sheet(plan: Plan, gpu: Gpu, precision: str, train_plan: TrainPlan) -> Seconds:
    """Roofline: the longest of computation, memory and links, which overlap.

    Starting, reading data, evaluating and saving are not part of it, nor are links between nodes.
    """
    peak = gpu.peaks.get(precision)
    if peak is None:
        return replace(UNKNOWN, basis=f"none: the data sheet of {gpu.name} has no {precision}")
    model = "1.3B" if plan.parameters > _LARGE else "124M"
    placement = ENGINES[plan.engine].placement
    share = SHARES[model, "host" if placement.offloads else placement.weights]
    flops = f"{share:.0%} of {peak / 1e12:g} TFLOP/s in {precision}"
    parts = {flops: plan.trace.flops / peak / share}
    of_links = gpu.link_bytes_per_s if plan.target.nodes == 1 else None
    for name, part_bytes, speed in (
        ("memory", plan.moved_bytes, gpu.memory_bytes_per_s),
        ("host link", 2 * plan.batching.accumulation * plan.trace.offloaded, _HOST_LINK),
        ("links", plan.placed.sent_bytes, of_links),
    ):
        if speed is not None:
            parts[f"{name} at {speed / 1e9:g} GB/s"] = part_bytes / speed
    limit, step = max(parts.items(), key=itemgetter(1))
    basis = (
        f"data sheet of {gpu.name}, {limit}; the share of the peak is that of PyTorch "
        f"with {model} parameters on an H200, of a matrix product"
    )
    run = train_plan.end_step * step
    if train_plan.time_s is not None:
        run = min(run, train_plan.time_s)
    return Seconds(step, train_plan.steps_per_epoch * step, run, basis, is_least=True)


def plan_run(resolved: Resolved, described: Described) -> Plan:
    """The plan of a run on the described machine. Reads its data. Raises SettingsError."""
    with open_planner(resolved, described) as planner:
        return planner.plan(resolved)


@contextmanager
def open_planner(
    resolved: Resolved, described: Described, process_bytes: int | None = None
) -> Iterator[Planner]:
    """The planner of `resolved`. Reads its data, and touches no GPU. Raises SettingsError.

    A model of the hub is downloaded where its shapes are in its files of weights only. Files of the
    task go into a temporary folder. `process_bytes`: see Planner.
    """
    model = resolved.settings.model
    if not getattr(config_of(model.family), "PLANNED_BY_CONFIG", False):
        fetch_weights(resolved.values)
    fetch_data(resolved.values, may_download=False)
    with hidden_gpus(), temporary_folder("gearshift-plan-") as folder:
        with _settings_errors(resolved):
            task = task_with_data(resolved.settings, folder, estimates=True)
            planner = Planner(task, resolved.settings, described, process_bytes)
        yield planner


@contextmanager
def _settings_errors(resolved: Resolved) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise about_data(error) from error
    except SettingError as error:
        raise SettingsError([about_setting(error, resolved)]) from error
    except EngineError as error:
        raise SettingsError.of(str(error), key="engine.name") from error


class Planner:
    """Plans runs of one task, whose data was read once, on one machine.

    Imports no DeepSpeed and opens no process group that outlives a call.
    """

    def __init__(
        self, task: Task, settings: Any, described: Described, process_bytes: int | None
    ) -> None:
        self._task = task
        self._model = settings.model
        self._encoded = _use_features(task, settings.feature_cache)
        self._samples = Samples(task, task.data("train"), settings.train.seed)
        self._described = described
        self._traces: dict[str, tuple[StepTrace, str | None]] = {}
        """With the reason why a step was measured."""
        self._process_bytes = process_bytes
        """Host memory of a process before the training: programs, data, libraries of the model.
        None: that of the first trace."""

    def plan(self, resolved: Resolved) -> Plan:
        """The plan of a run with the same data; reads it again for other settings of the model.

        Raises SettingsError.
        """
        if resolved.settings.model != self._model:
            with open_planner(resolved, self._described, self._process_bytes) as other:
                return other.plan(resolved)
        resolved = self.fitted(resolved)
        with _settings_errors(resolved):
            return self._predict(resolved, self.subject(resolved))

    def bound(self, resolved: Resolved, plan: Plan) -> Plan:
        """`plan` with what the run of `resolved` needs at least, all of it as weights.

        Arithmetic: weights, gradients and optimizer state by the placement of the engine. Of
        adapters neither gradients nor state count.
        """
        settings = resolved.settings
        engine = ENGINES[settings.engine.name]
        parameters = plan.parameters
        trained = plan.trace.trainable
        rounds = engine.shards_parameters
        if settings.model != self._model:
            trained = 0
            rounds = True
            if settings.model.quantize is not None:
                parameters //= FP32_BYTES
        is_16_bit = rounds and settings.precision not in ("fp32", "tf32")
        weight_bytes = 2 if is_16_bit else FP32_BYTES
        target = self._described.target(resolved)
        state = engine.placed(settings.engine.offload).state_bytes(
            parameters, target.ranks, weight_bytes, settings.optim.least_bytes, trained
        )
        device = {**dict.fromkeys(Kind, 0), Kind.WEIGHTS: state.device}
        host_bytes = state.host + (state.device if target.device == "cpu" else 0)
        return replace(
            plan,
            engine=engine.name,
            batching=resolved.batching,
            placed=Placed(device, state.host, 0.0),
            host_bytes=target.ranks_per_node * host_bytes,
        )

    def fitted(self, resolved: Resolved) -> Resolved:
        """The run with the batch that it would use for its data."""
        return fitted_batch.fitted(resolved, len(self._samples))

    def subject(self, resolved: Resolved) -> Subject:
        """The training of the task with the batch numbers of `resolved`. Raises DataError."""
        settings = resolved.settings
        numbers = resolved.batching
        batching.check_fills(resolved, len(self._samples))
        order = order_of(self._samples.split, numbers.global_batch, settings.train.seed)
        plan = solve(
            settings,
            samples=order.length,
            global_batch=numbers.global_batch,
            micro_batch=numbers.micro_batch,
            world_size=numbers.world_size,
            units=self._task.units,
            time_s=time_s(settings.train.time) if settings.train.time else None,
        )
        if isinstance(settings.engine.shares, list):
            plan = with_shares(plan, settings.engine.shares)
        micro_batch = _largest(self._samples, order, plan)
        return Subject(self._task, settings, plan, micro_batch, encoded=self._encoded)

    def _predict(self, resolved: Resolved, subject: Subject) -> Plan:
        settings = resolved.settings
        engine = ENGINES[settings.engine.name]
        target = self._described.target(resolved)
        options = engine_options(settings, resolved, subject.task.channels_last)
        # A precision that the CPU has, with tensors of the same size.
        precision: Any = {"tf32": "fp32", "fp8": "bf16"}.get(options.precision, options.precision)
        options = replace(options, precision=precision, compile=False)
        trace, obstacle = self._traced(resolved, subject, target, options)

        is_cpu = target.device == "cpu"
        accumulation = resolved.batching.accumulation
        if engine.ds_config is not None:
            placed = zero(trace, target.ranks, accumulation, options.ds_config["zero_optimization"])
        elif engine.is_traced:
            placed = as_traced(
                trace, target.ranks, offloads=engine.placement.offloads, on_cpu=is_cpu
            )
        else:
            placed = replicated(trace, target.ranks, accumulation, engine.placement)

        # Host memory has the process and what it offloads; on a CPU the peak of the rank as well.
        rank_bytes = (self._process_bytes or 0) + placed.offloaded_bytes + trace.offloaded
        workers = settings.loader.workers
        loader_bytes = workers * settings.loader.prefetch * tensor_bytes(subject.micro_batch.batch)
        if is_cpu:
            rank_bytes += placed.device_bytes
            if not settings.memory.return_freed:
                rank_bytes += _heap_bytes(placed, trace, engine, target.ranks)
            if workers:
                # They are forks: they keep the pages of the weights as they were at their start,
                # which the next update copies. All share these. Forks inherit no pinned memory.
                loader_bytes += placed.device[Kind.WEIGHTS]
        plan = Plan(
            engine.name,
            target,
            resolved.batching,
            trace,
            placed,
            host_bytes=target.ranks_per_node * (rank_bytes + loader_bytes),
            rank_host_bytes=rank_bytes,
            checkpoint_bytes=trace.checkpoint_bytes,
            steps=subject.train_plan.end_step,
            untraced=obstacle,
            is_compiled=settings.compile != "off",
        )
        if target.gpu is None:
            return plan
        seconds = by_data_sheet(plan, target.gpu, settings.precision, subject.train_plan)
        return replace(plan, seconds=seconds)

    def _traced(
        self, resolved: Resolved, subject: Subject, target: PlanTarget, options: Options
    ) -> tuple[StepTrace, str | None]:
        """The trace, of an equal run where there is one, or else a step that is measured."""
        engine = ENGINES[resolved.settings.engine.name]
        key = _trace_key(resolved, target, options)
        if key not in self._traces:
            obstacle = None
            try:
                trace = self._trace(engine, subject, target, options)
            except SettingError:
                raise
            except UNTRACED_ERRORS as error:  # a step that depends on values is measured
                obstacle = cause_of(error)
                self._check_memory(obstacle)
                trace = self._trace(engine, replace(subject, is_fake=False), target, options)
            self._traces[key] = trace, obstacle
            # Of the first one: traces make it grow.
            self._process_bytes = self._process_bytes or trace.process_bytes
        return self._traces[key]

    def _check_memory(self, obstacle: str) -> None:
        """Raise SettingsError if a step with values does not fit the free memory."""
        with cleared_caches():
            count = sum(p.numel() for p in build(self._task, Storages()).parameters())
        if 3 * FP32_BYTES * count > psutil.virtual_memory().available:
            raise SettingsError.of(
                "a step that depends on values is measured, and this machine has too little free "
                f"memory for its weights, gradients and optimizer: {obstacle}",
                key="model",
            )

    def _trace(
        self, engine: Entry, subject: Subject, target: PlanTarget, options: Options
    ) -> StepTrace:
        """The trace of the engine itself, or of the model alone."""
        info = RankInfo()
        name = by_processes(1)
        if engine.is_traced:
            info = RankInfo(0, target.ranks, 0, target.ranks_per_node, 0)
            name = engine.name
        with ExitStack() as stack:
            if engine.is_traced or _shares_work(engine, subject.settings):
                # Rank 0 of a process group whose other ranks do not exist: nothing is sent.
                from torch.testing._internal.distributed.fake_pg import FakeStore

                store = FakeStore()
                dist.init_process_group("fake", rank=0, world_size=target.ranks, store=store)
                stack.callback(dist.destroy_process_group)
            built = build_engine(name, ProcessWorld(info, _CPU, 0.0), options)
            rounding = DTYPES[options.precision] if _rounds(engine, options) else None
            repeats = not engine.is_traced
            return trace_step(
                subject,
                built,
                rounding=rounding,
                repeats=repeats,
                # Offloaded activations of a block return while the one after it computes.
                repeats_blocks=repeats and not options.activation_offload,
            )


def _heap_bytes(placed: Placed, trace: StepTrace, engine: Entry, ranks: int) -> int:
    """What the heap of a rank on a CPU keeps of freed blocks."""
    state_bytes = placed.device[Kind.WEIGHTS] + placed.device[Kind.OPTIMIZER]
    heap_bytes = HEAP * (placed.device_bytes - state_bytes)
    if engine.is_traced and ranks > 1:
        heap_bytes += GATHERED * FP32_BYTES * trace.parameters
    return round(heap_bytes)


def _trace_key(resolved: Resolved, target: PlanTarget, options: Options) -> str:
    """The same for runs of one task whose trace is the same: most engines use that of local."""
    settings = resolved.settings
    engine = ENGINES[resolved.settings.engine.name]
    kind = ""
    if engine.is_traced:
        # Traced on a CPU, where the state is in host memory already, engines that differ in offload
        # differ only in when they average the gradients of several micro-batches.
        kind = engine.name if resolved.batching.accumulation > 1 else engine.module
    if _rounds(engine, options):
        kind = "rounded"
    if _shares_work(engine, settings):
        kind = "shared"
    outside_of_steps: Any = {
        "compile": True,
        "engine": {"name", "ds_config", "nproc"},
        "loader": True,
        "memory": {"return_freed"},
    }
    content = settings.model_dump(mode="json", exclude=outside_of_steps)
    ranks = (target.nodes, target.ranks_per_node)
    return json.dumps([kind, ranks, content], default=str, sort_keys=True)


def _shares_work(engine: Entry, settings: TrainingSettings) -> bool:
    """Whether the ranks divide the work of the optimizer, each with all parameters."""
    return settings.optim.name == "muon" and not engine.placement.spread_parts


def _rounds(engine: Entry, options: Options) -> bool:
    """Whether weights have 16 bits, as DeepSpeed keeps them beside those in fp32."""
    return engine.ds_config is not None and options.precision in DTYPES


def _use_features(task: Task, cache: FeatureCache) -> Batch | None:
    """Let `task` return samples with cached features, if a run does; inputs of one encoder pass.

    None: the encoder runs in each step. Whether the disk has room is not looked at.
    """
    if not isinstance(task, HasFrozenEncoder) or cache.mode == "off" or task.varying_inputs():
        return None
    from gearshift.training.data import feature_cache

    storages = Storages()
    try:
        model = build(task, storages)
        if task.frozen_encoder(model) is None:
            return None
        first = task.encoder_inputs("train")
        batch = first.batch([n % len(first) for n in range(feature_cache.BATCH)])
        inputs = copied(batch, storages)
        with cleared_caches(), storages.computing(), torch.no_grad():
            features = task.encode(model, inputs)
    except UNTRACED_ERRORS:  # the encoder needs values
        return None
    row: dict[str, np.ndarray] = {}
    for name, values in features.items():
        dtype = torch.float32 if values.dtype in feature_cache.HALVES else values.dtype
        row[name] = torch.zeros(values.shape[1:], dtype=dtype, device="cpu").numpy()
    samples = sum(len(task.encoder_inputs(split)) for split in feature_cache.SPLITS)
    if samples * sum(part.nbytes for part in row.values()) > cache.limit_gb * 1e9:
        return None
    task.use_features({split: defaultdict(lambda: row) for split in feature_cache.SPLITS})
    return batch


def _largest(samples: Samples, order: DataOrder, plan: TrainPlan) -> MicroBatch:
    """The largest in bytes of the first micro-batches of a few steps: padding differs.

    Of the rank with the largest share.
    """
    end = monotonic() + _TRIED_S
    shares = plan.samples_by_rank(0)
    rank = shares.index(max(shares))
    batches: list[MicroBatch] = []
    for step in range(min(_TRIED, order.steps_per_epoch)):
        epoch, parts = order.share(step, rank, plan.world_size, plan.micro_batch, shares)
        micro_batch = samples[epoch, parts[0]]
        if isinstance(micro_batch, DataError):
            raise micro_batch
        batches.append(micro_batch)
        if monotonic() > end:
            break
    return max(batches, key=lambda micro_batch: tensor_bytes(micro_batch.batch))
