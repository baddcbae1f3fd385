"""The plan of a run: its memory, traffic and operations, predicted without a device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from engines.base import EngineError, Options, World
from engines.catalog import ENGINES, Entry, build_engine, by_processes
from engines.environment import RankInfo
from engines.frozen_weights import round_weights
from engines.precision import DTYPES, norms_in_fp32
from engines.world import ProcessWorld
from launcher.base.diagnostics import SettingsError
from launcher.config import batching
from launcher.config.engine_options import engine_options
from launcher.config.errors import about_data, about_setting
from launcher.config.provenance import Resolved
from launcher.config.resolve import fetch_weights
from launcher.plan import placement, time
from launcher.plan.placement import Placed, Ranks
from launcher.plan.step_trace import (
    UNTRACED_ERRORS,
    StepTrace,
    Subject,
    Untraced,
    hidden_gpus,
    trace_step,
    untraced,
)
from launcher.plan.storages import Kind
from launcher.plan.subject import TaskData, read_task
from launcher.plan.target import Described, PlanTarget
from launcher.plan.time import UNKNOWN, Seconds, Work
from launcher.plan.zero_placement import zero
from models.base import DataError
from training.checkpoint import base_weights, room
from training.logging.quantities import size
from training.settings import SettingError, TrainingSettings

MARGIN = 0.06
"""Of a node's main memory that stays free: fragmentation, other programs."""
HEAP = 0.6
"""Of gradients, activations and temporaries on a CPU: what glibc keeps of freed blocks, in a heap
with holes, unless `memory.return_freed` is on. Measured by benchmarks.plan_host."""
GATHERED = 1.5
"""Of all weights, under FSDP on a CPU: gloo copies what it sends, and the heap keeps the blocks of
gathered weights. Measured by benchmarks.plan_host on two ranks."""
TRACED = "traced on tensors without values"
MEASURED = "measured on this CPU"
UNCOMPILED = (
    "planned as if not compiled, an upper bound: a compiled language model needs half of it"
)
_CPU = torch.device("cpu")

Traced = tuple[StepTrace, int, Untraced | None]
"""The trace of a step, the bytes of a checkpoint, and why it was measured."""


@dataclass(frozen=True)
class Plan:
    """What a run needs; bytes are those of the rank, or node, with the most."""

    engine: str
    target: PlanTarget
    device: Mapping[Kind, int]
    """Bytes of each kind at the peak of a rank."""
    offloaded_bytes: int
    """Of a rank, in host memory instead."""
    copied_bytes: int
    """Of it, to the host and back in a step."""
    host_bytes: int
    """Of a node: the processes with what they offload, and on a CPU their peaks."""
    rank_host_bytes: int
    """Of it, one rank, without its loader workers."""
    sent_bytes: float
    """That a rank sends per step."""
    checkpoint_bytes: int
    parameters: int
    trainable: int
    flops: float
    """Of one step of a rank."""
    launches: float
    """Kernels that a rank starts in a step, not compiled."""
    global_batch: int
    micro_batch: int
    accumulation: int
    steps: int
    steps_per_epoch: int
    seconds: Seconds = UNKNOWN
    untraced: Untraced | None = None
    """Why the step was measured instead of traced; None: it was traced."""
    uncompiled: str | None = None
    """That a compiled run is planned as if it were not compiled; None: it is not compiled."""

    @property
    def device_bytes(self) -> int:
        """The peak of a rank."""
        return sum(self.device.values())

    @property
    def fits(self) -> bool | None:
        """Whether the peaks are below the memory of the target; None: it is unknown."""
        device, ram = self.target.device_bytes, self.target.ram_bytes
        if self.lacks_device() or self.lacks_ram():
            return False
        return None if ram is None or (device is None and self.target.device != "cpu") else True

    def lacks_device(self) -> bool:
        """Whether the peak of a rank is more than the memory of a GPU for tensors."""
        limit = self.target.device_bytes
        return limit is not None and self.device_bytes > limit

    def lacks_ram(self) -> bool:
        """Whether the peak of a node leaves less than MARGIN of its main memory."""
        limit = self.target.ram_bytes
        return limit is not None and self.host_bytes > limit * (1 - MARGIN)

    @property
    def is_host_bound(self) -> bool:
        """Whether main memory decides: on a CPU, or if only that is too small."""
        return self.target.device == "cpu" or (self.lacks_ram() and not self.lacks_device())

    @property
    def needs(self) -> str:
        """`3.1 GiB of 8.0 GiB` or `3.1 GiB, GPU memory unknown`, of the memory that decides."""
        is_host, target = self.is_host_bound, self.target
        limit = target.ram_bytes if is_host else target.device_bytes
        kind = "main" if is_host else "GPU"
        of = f", {kind} memory unknown" if limit is None else f" of {size(limit)}"
        return f"{size(self.host_bytes if is_host else self.device_bytes)}{of}"

    def as_json(self) -> dict[str, Any]:
        """The facts of `plan --json`."""
        return {
            "engine": self.engine,
            "ranks": self.target.ranks,
            "device_memory_bytes": self.target.device_bytes,
            "device_peak_bytes": {
                "total": self.device_bytes,
                **{kind.value: n for kind, n in self.device.items()},
            },
            "host_peak_bytes": self.host_bytes,
            "bytes_per_step": round(self.sent_bytes),
            "checkpoint_bytes": self.checkpoint_bytes,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable,
            "flops_per_step": self.flops * self.target.ranks,
            "global_batch": self.global_batch,
            "micro_batch": self.micro_batch,
            "steps": self.steps,
            "seconds": asdict(self.seconds),
            "fits": self.fits,
            "basis": TRACED if self.untraced is None else MEASURED,
            "untraced": None if self.untraced is None else asdict(self.untraced),
            "uncompiled": self.uncompiled,
        }


def plan_run(resolved: Resolved, described: Described) -> Plan:
    """The plan of a run on the described machine. Reads its data. Raises SettingsError."""
    with open_planner(resolved, described) as planner:
        return planner.plan(resolved)


@contextmanager
def open_planner(resolved: Resolved, described: Described) -> Iterator[Planner]:
    """The planner of `resolved`. Reads its data, and touches no GPU. Raises SettingsError.

    The shapes of a model are in its files of weights, so that one of the hub is downloaded.
    """
    fetch_weights(resolved.settings.model)
    with ExitStack() as stack:
        stack.enter_context(hidden_gpus())
        with _settings_errors(resolved):
            data = stack.enter_context(read_task(resolved))
        yield Planner(data, described)


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

    def __init__(self, data: TaskData, described: Described) -> None:
        """To be made when the data was read."""
        self._data = data
        self._described = described
        self._traces: dict[str, Traced] = {}
        self.process_bytes = psutil.Process().memory_info().rss
        """Host memory of a process before the training: programs, data, libraries of the model."""
        self._is_built = False

    def plan(self, resolved: Resolved) -> Plan:
        """The plan of a run with the same data; reads it again for other settings of the model.

        Raises SettingsError.
        """
        if resolved.settings.model != self._data.model:
            with open_planner(resolved, self._described) as other:
                # Traces have made this process larger.
                other.process_bytes, other._is_built = self.process_bytes, True
                return other.plan(resolved)
        resolved = self.fitted(resolved)
        with _settings_errors(resolved):
            subject, target = self._data.subject(resolved), self._described.target(resolved)
            return self._predict(resolved, subject, target)

    def fitted(self, resolved: Resolved) -> Resolved:
        """The run with the batch that it would use for its data."""
        return batching.fitted(resolved, len(self._data.samples))

    def note_model(self) -> None:
        """To be called once the model was built, without values.

        What the process has grown by are libraries of the model: the training imports them too.
        """
        if not self._is_built:  # later it has grown by traces
            self._is_built = True
            self.process_bytes = psutil.Process().memory_info().rss

    def _predict(self, resolved: Resolved, subject: Subject, target: PlanTarget) -> Plan:
        settings, numbers = resolved.settings, resolved.batching
        options = _on_cpu(engine_options(settings, resolved, subject.task.channels_last))
        key = _trace_key(resolved, target, options)
        if key not in self._traces:
            self._traces[key] = self._trace_or_measure(
                settings.engine.name, subject, target, options
            )
        trace, checkpoint_bytes, obstacle = self._traces[key]
        engine = ENGINES[settings.engine.name]
        ranks = Ranks(target.ranks, numbers.accumulation)
        placed = _placed(engine, trace, ranks, options, on_cpu=target.device == "cpu")
        offloaded_bytes = placed.offloaded_bytes + trace.offloaded
        rank_bytes = self.process_bytes + offloaded_bytes
        workers = settings.loader.workers
        beside = workers * settings.loader.prefetch * _batch_bytes(subject)
        if target.device == "cpu":
            rank_bytes += placed.device_bytes + _heap_bytes(placed, resolved, target, trace)
            # Loader workers are forks: they keep the pages of the weights as they were at their
            # start, which the next update copies. All share these. Forks inherit no pinned memory.
            beside += placed.device[Kind.WEIGHTS] if workers else 0
        return Plan(
            engine=engine.name,
            target=target,
            device=placed.device,
            offloaded_bytes=offloaded_bytes,
            copied_bytes=2 * (placed.offloaded_bytes + numbers.accumulation * trace.offloaded),
            host_bytes=target.ranks_per_node * (rank_bytes + beside),
            rank_host_bytes=rank_bytes,
            sent_bytes=placed.sent_bytes,
            checkpoint_bytes=checkpoint_bytes,
            parameters=trace.parameters + trace.quantized,
            trainable=trace.trainable,
            flops=trace.flops,
            launches=trace.launches,
            global_batch=numbers.global_batch,
            micro_batch=numbers.micro_batch,
            accumulation=numbers.accumulation,
            steps=subject.train_plan.end_step,
            steps_per_epoch=subject.train_plan.steps_per_epoch,
            seconds=_seconds(resolved, subject, target, trace, placed),
            untraced=obstacle,
            uncompiled=UNCOMPILED if settings.compile != "off" else None,
        )

    def _trace_or_measure(
        self, engine: str, subject: Subject, target: PlanTarget, options: Options
    ) -> Traced:
        """The trace on fake tensors, or where the step depends on values, that of a real step."""
        try:
            return *self._trace(engine, subject, target, options), None
        except SettingError:
            raise
        except UNTRACED_ERRORS as error:
            real = replace(subject, is_fake=False)
            return *self._trace(engine, real, target, options), untraced(error)

    def _trace(
        self, engine: str, subject: Subject, target: PlanTarget, options: Options
    ) -> tuple[StepTrace, int]:
        """The trace of the engine itself, or of the model alone; the bytes of a checkpoint."""
        entry, checkpoints = ENGINES[engine], []

        def change(model: Module) -> None:
            if subject.is_fake:
                self.note_model()
            only_trained = base_weights.has_adapters(subject.task)
            bytes_ = room.checkpoint_bytes(model, subject.settings, only_trained=only_trained)
            checkpoints.append(bytes_)
            if _rounds(entry, options):
                norms_in_fp32(model)
                weights = dict(model.named_parameters())
                round_weights(weights, DTYPES[options.precision], keeps=False)

        if entry.is_traced:
            with _fake_world(target) as world:
                trace = trace_step(subject, build_engine(engine, world, options), change)
        else:
            alone = build_engine(by_processes(1), ProcessWorld(RankInfo(), _CPU, 0.0), options)
            # Autocast keeps the casts of the first micro-batch for later ones; rounded weights need
            # none.
            repeats = options.precision not in DTYPES or _rounds(entry, options)
            with _fake_world(target) if _shares_work(entry, subject.settings) else nullcontext():
                trace = trace_step(subject, alone, change, repeats=repeats)
        return trace, checkpoints[0]


def _heap_bytes(placed: Placed, resolved: Resolved, target: PlanTarget, trace: StepTrace) -> int:
    if resolved.settings.memory.return_freed:
        return 0
    state_bytes = placed.device[Kind.WEIGHTS] + placed.device[Kind.OPTIMIZER]
    bytes_ = HEAP * (placed.device_bytes - state_bytes)
    if ENGINES[resolved.settings.engine.name].is_traced and target.ranks > 1:
        bytes_ += GATHERED * placement.FP32_BYTES * trace.parameters
    return round(bytes_)


def _seconds(
    resolved: Resolved, subject: Subject, target: PlanTarget, trace: StepTrace, placed: Placed
) -> Seconds:
    if target.gpu is None:
        return UNKNOWN
    accumulation = resolved.batching.accumulation
    val_samples = len(subject.task.data("val"))
    return time.by_data_sheet(
        target.gpu,
        resolved.settings.precision,
        target,
        ENGINES[resolved.settings.engine.name].placement,
        trace.parameters + trace.quantized,
        Work(
            trace.flops,
            time.moved_bytes(placed.device, trace.trainable, accumulation, trace.offloaded),
            placed.sent_bytes,
            2 * accumulation * trace.offloaded,
        ),
        subject.train_plan,
        min(val_samples, resolved.settings.eval.samples or val_samples),
    )


def _on_cpu(options: Options) -> Options:
    """`options` with a precision that the CPU has, and tensors of the same size; not compiled."""
    same_size = {"tf32": "fp32", "fp8": "bf16"}
    precision: Any = same_size.get(options.precision, options.precision)
    return replace(options, precision=precision, compile=False)


def _trace_key(resolved: Resolved, target: PlanTarget, options: Options) -> str:
    """The same for runs of one task whose trace is the same: most engines use that of local."""
    settings, engine = resolved.settings, ENGINES[resolved.settings.engine.name]
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


@contextmanager
def _fake_world(target: PlanTarget) -> Iterator[World]:
    """Rank 0 of a process group whose other ranks do not exist: nothing is sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    size = target.ranks
    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield ProcessWorld(RankInfo(0, size, 0, target.ranks_per_node, 0), _CPU, 0.0)
    finally:
        dist.destroy_process_group()


def _shares_work(engine: Entry, settings: TrainingSettings) -> bool:
    """Whether the ranks divide the work of the optimizer, each with all parameters."""
    return settings.optim.name == "muon" and not engine.placement.spread_parts


def _rounds(engine: Entry, options: Options) -> bool:
    """Whether weights have 16 bits, as DeepSpeed keeps them beside those in fp32."""
    return engine.ds_config is not None and options.precision in DTYPES


def _placed(
    engine: Entry, trace: StepTrace, ranks: Ranks, options: Options, *, on_cpu: bool
) -> Placed:
    if engine.ds_config is not None:
        return zero(trace, ranks, options.ds_config["zero_optimization"])
    if engine.is_traced:
        offloads = engine.placement.offloads
        return placement.as_traced(trace, ranks, offloads=offloads, on_cpu=on_cpu)
    return placement.replicated(trace, ranks, engine.placement)


def _batch_bytes(subject: Subject) -> int:
    leaves = tree_leaves(subject.micro_batch.batch)
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
