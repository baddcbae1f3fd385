"""The plan of a run: its memory, traffic and operations, predicted without a device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch.nn import Module

from engines.base import EngineError, Options
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
from launcher.config.schema import config_of
from launcher.plan import time
from launcher.plan.placement import FP32_BYTES, Ranks, as_traced, replicated, zero
from launcher.plan.step_trace import UNTRACED_ERRORS, StepTrace, Subject, hidden_gpus, trace_step, untraced
from launcher.plan.storages import Kind
from launcher.plan.subject import TaskData, batch_bytes, read_task
from launcher.plan.target import Described, PlanTarget
from launcher.plan.time import UNKNOWN, Seconds
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
UNCOMPILED = "planned as if not compiled: an upper bound"
_CPU = torch.device("cpu")


_GPU_SPEEDS, _CPU_SPEEDS = (1e14, 1.5e12, 5e10, 1e10), (3e10, 5e9, 5e8, 5e9)
"""What a rank does in a second, roughly: operations, bytes in memory, bytes sent, and to the host
and back. Only ratios between engines count."""
_GPU_START_S, _CPU_START_S = 5e-6, 1e-6
"""To start a kernel."""


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
    seconds: Seconds = UNKNOWN
    untraced: str | None = None
    """Why the step was measured instead of traced; None: it was traced."""
    is_compiled: bool = False
    """Whether the run is compiled, and so the plan an upper bound of its memory."""

    @property
    def device_bytes(self) -> int:
        """The peak of a rank."""
        return sum(self.device.values())

    @property
    def _shares(self) -> tuple[float, float]:
        """What the peaks of a rank and of a node are of what they may be; 0: it is unknown."""
        device, ram = self.target.device_bytes, self.target.ram_bytes
        on_device = self.device_bytes / device if device else float(device is not None) * 2
        return on_device, self.host_bytes / (ram * (1 - MARGIN)) if ram else 0.0

    @property
    def lacks_device(self) -> bool:
        """Whether the peak of a rank is more than the memory of a GPU for tensors."""
        return self._shares[0] > 1

    @property
    def lacks_ram(self) -> bool:
        """Whether the peak of a node leaves less than MARGIN of its main memory."""
        return self._shares[1] > 1

    @property
    def use(self) -> float:
        """The share of the memory that decides: above 1, it does not fit."""
        return max(self._shares)

    @property
    def fits(self) -> bool | None:
        """Whether the peaks are below the memory of the target; None: it is unknown."""
        if self.lacks_device or self.lacks_ram:
            return False
        is_gpu, target = self.target.device != "cpu", self.target
        is_unknown = target.ram_bytes is None or (is_gpu and target.device_bytes is None)
        return None if is_unknown else True

    @property
    def start_s(self) -> float:
        """Estimated seconds to start the kernels of a step."""
        return self.launches * (_CPU_START_S if self.target.device == "cpu" else _GPU_START_S)

    @property
    def cost(self) -> float:
        """Estimated seconds of a step, for comparing plans only.

        Operations, the update, traffic, offload and the start of kernels, one after the other.
        """
        speeds = _CPU_SPEEDS if self.target.device == "cpu" else _GPU_SPEEDS
        update = 2 * (self.device[Kind.OPTIMIZER] + self.device[Kind.WEIGHTS])
        work = (self.flops, update, self.sent_bytes, self.copied_bytes)
        return sum(n / speed for n, speed in zip(work, speeds, strict=True)) + self.start_s

    @property
    def is_host_bound(self) -> bool:
        """Whether main memory decides: on a CPU, or if only that is too small."""
        return self.target.device == "cpu" or (self.lacks_ram and not self.lacks_device)

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
                **{kind.name.lower(): n for kind, n in self.device.items()},
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
            "untraced": self.untraced,
            "uncompiled": UNCOMPILED if self.is_compiled else None,
        }


def plan_run(resolved: Resolved, described: Described) -> Plan:
    """The plan of a run on the described machine. Reads its data. Raises SettingsError."""
    with open_planner(resolved, described) as planner:
        return planner.plan(resolved)


@contextmanager
def open_planner(
    resolved: Resolved, described: Described, process_bytes: int | None = None
) -> Iterator[Planner]:
    """The planner of `resolved`. Reads its data, and touches no GPU. Raises SettingsError.

    A model of the hub is downloaded where its shapes are in its files of weights only.
    `process_bytes`: see Planner.
    """
    model = resolved.settings.model
    if not getattr(config_of(model.family), "PLANNED_BY_CONFIG", False):
        fetch_weights(model)
    with ExitStack() as stack:
        stack.enter_context(hidden_gpus())
        with _settings_errors(resolved):
            data = stack.enter_context(read_task(resolved))
        yield Planner(data, described, process_bytes)


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

    def __init__(self, data: TaskData, described: Described, process_bytes: int | None) -> None:
        self._data = data
        self._described = described
        self._traces: dict[str, tuple[StepTrace, int, str | None]] = {}
        """With the bytes of a checkpoint, and why a step was measured."""
        self._process_bytes = process_bytes
        """Host memory of a process before the training: programs, data, libraries of the model.
        None: measured once the first model is built without values; later it has grown by traces."""

    def plan(self, resolved: Resolved) -> Plan:
        """The plan of a run with the same data; reads it again for other settings of the model.

        Raises SettingsError.
        """
        if resolved.settings.model != self._data.model:
            with open_planner(resolved, self._described, self._process_bytes) as other:
                return other.plan(resolved)
        resolved = self.fitted(resolved)
        with _settings_errors(resolved):
            return self._predict(resolved, self._data.subject(resolved))

    def fitted(self, resolved: Resolved) -> Resolved:
        """The run with the batch that it would use for its data."""
        return batching.fitted(resolved, len(self._data.samples))

    def _predict(self, resolved: Resolved, subject: Subject) -> Plan:
        settings, numbers = resolved.settings, resolved.batching
        engine, target = ENGINES[settings.engine.name], self._described.target(resolved)
        options = engine_options(settings, resolved, subject.task.channels_last)
        # A precision that the CPU has, with tensors of the same size.
        precision: Any = {"tf32": "fp32", "fp8": "bf16"}.get(options.precision, options.precision)
        options = replace(options, precision=precision, compile=False)
        key = _trace_key(resolved, target, options)
        if key not in self._traces:
            try:
                self._traces[key] = *self._trace(engine, subject, target, options), None
            except SettingError:
                raise
            except UNTRACED_ERRORS as error:  # a step that depends on values is measured
                real = self._trace(engine, replace(subject, is_fake=False), target, options)
                self._traces[key] = *real, untraced(error)
        trace, checkpoint_bytes, obstacle = self._traces[key]
        ranks, is_cpu = Ranks(target.ranks, numbers.accumulation), target.device == "cpu"
        if engine.ds_config is not None:
            placed = zero(trace, ranks, options.ds_config["zero_optimization"])
        elif engine.is_traced:
            placed = as_traced(trace, ranks, offloads=engine.placement.offloads, on_cpu=is_cpu)
        else:
            placed = replicated(trace, ranks, engine.placement)
        offloaded_bytes = placed.offloaded_bytes + trace.offloaded
        rank_bytes = (self._process_bytes or 0) + offloaded_bytes
        workers = settings.loader.workers
        beside = workers * settings.loader.prefetch * batch_bytes(subject.micro_batch)
        if is_cpu:
            rank_bytes += placed.device_bytes
            if not settings.memory.return_freed:
                state_bytes = placed.device[Kind.WEIGHTS] + placed.device[Kind.OPTIMIZER]
                heap_bytes = HEAP * (placed.device_bytes - state_bytes)
                if engine.is_traced and target.ranks > 1:
                    heap_bytes += GATHERED * FP32_BYTES * trace.parameters
                rank_bytes += round(heap_bytes)
            # Loader workers are forks: they keep the pages of the weights as they were at their
            # start, which the next update copies. All share these. Forks inherit no pinned memory.
            beside += placed.device[Kind.WEIGHTS] if workers else 0
        seconds, parameters = UNKNOWN, trace.parameters + trace.quantized
        if target.gpu is not None:
            val_samples = len(subject.task.data("val"))
            seconds = time.by_data_sheet(
                target.gpu,
                settings.precision,
                target,
                engine.placement,
                parameters,
                subject.train_plan,
                min(val_samples, settings.eval.samples or val_samples),
                flops=trace.flops,
                moved=time.moved_bytes(placed.device, trace.trainable, numbers.accumulation, trace.offloaded),
                sent=placed.sent_bytes,
                copied=2 * numbers.accumulation * trace.offloaded,
            )
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
            parameters=parameters,
            trainable=trace.trainable,
            flops=trace.flops,
            launches=trace.launches,
            global_batch=numbers.global_batch,
            micro_batch=numbers.micro_batch,
            accumulation=numbers.accumulation,
            steps=subject.train_plan.end_step,
            seconds=seconds,
            untraced=obstacle,
            is_compiled=settings.compile != "off",
        )

    def _trace(
        self, engine: Entry, subject: Subject, target: PlanTarget, options: Options
    ) -> tuple[StepTrace, int]:
        """The trace of the engine itself, or of the model alone; the bytes of a checkpoint."""
        checkpoints, rounds = [], _rounds(engine, options)

        def change(model: Module) -> None:
            self._process_bytes = self._process_bytes or psutil.Process().memory_info().rss
            only_trained = base_weights.has_adapters(subject.task)
            bytes_ = room.checkpoint_bytes(model, subject.settings, only_trained=only_trained)
            checkpoints.append(bytes_)
            if rounds:
                norms_in_fp32(model)
                weights = dict(model.named_parameters())
                round_weights(weights, DTYPES[options.precision], keeps=False)

        info, name = RankInfo(), by_processes(1)
        if engine.is_traced:
            info = RankInfo(0, target.ranks, 0, target.ranks_per_node, 0)
            name = engine.name
        with ExitStack() as stack:
            if engine.is_traced or _shares_work(engine, subject.settings):
                # Rank 0 of a process group whose other ranks do not exist: nothing is sent.
                from torch.testing._internal.distributed.fake_pg import FakeStore

                store, size = FakeStore(), target.ranks
                dist.init_process_group("fake", rank=0, world_size=size, store=store)
                stack.callback(dist.destroy_process_group)
            built = build_engine(name, ProcessWorld(info, _CPU, 0.0), options)
            return trace_step(subject, built, change, repeats=not engine.is_traced), checkpoints[0]


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


def _shares_work(engine: Entry, settings: TrainingSettings) -> bool:
    """Whether the ranks divide the work of the optimizer, each with all parameters."""
    return settings.optim.name == "muon" and not engine.placement.spread_parts


def _rounds(engine: Entry, options: Options) -> bool:
    """Whether weights have 16 bits, as DeepSpeed keeps them beside those in fp32."""
    return engine.ds_config is not None and options.precision in DTYPES
