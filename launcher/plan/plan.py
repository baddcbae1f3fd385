"""The plan of a run: its memory, traffic and operations, predicted without a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_leaves

from engines.base import Engine, EngineError, Options, World
from engines.environment import RankInfo
from engines.fsdp import FSDP
from engines.local import local
from engines.precision import DTYPES, norms_in_fp32
from engines.world import ProcessWorld
from engines.zero.engine import round_weights
from launcher.base.diagnostics import SettingsError
from launcher.config.engine_options import engine_options
from launcher.config.errors import about_data, about_setting
from launcher.config.provenance import Resolved
from launcher.plan import compiled, placement, time, untraced
from launcher.plan.placement import Placed, Ranks
from launcher.plan.step_trace import StepTrace, Subject, trace_step
from launcher.plan.storages import Kind
from launcher.plan.subject import read_subject
from launcher.plan.target import Described, Target
from launcher.plan.time import UNKNOWN, Seconds, Work
from launcher.plan.untraced import Untraced
from launcher.plan.zero_placement import zero
from models.base import DataError
from training.checkpoint import room
from training.settings import SettingError

MARGIN = 0.06
"""Of a GPU's memory that stays free: fragmentation, and the workspaces of its libraries."""
TRACED = "traced on tensors without values"
MEASURED = "measured on this CPU"
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """What a run needs; bytes are those of the rank, or node, with the most."""

    engine: str
    target: Target
    device: Mapping[Kind, int]
    """Bytes of each kind at the peak of a rank."""
    offloaded_bytes: int
    """Of a rank, in host memory instead."""
    host_bytes: int
    """Of a node: the processes with what they offload, and on a CPU their peaks."""
    sent_bytes: float
    """That a rank sends per step."""
    checkpoint_bytes: int
    parameters: int
    trainable: int
    flops: float
    """Of one step of a rank."""
    global_batch: int
    micro_batch: int
    steps: int
    steps_per_epoch: int
    seconds: Seconds = UNKNOWN
    untraced: Untraced | None = None
    """Why the step was measured instead of traced; None: it was traced."""
    uncompiled: str | None = None
    """Why a compiled run is planned as if it were not compiled, which needs more memory; None: it
    is planned as it runs."""

    @property
    def device_bytes(self) -> int:
        """The peak of a rank."""
        return sum(self.device.values())

    @property
    def fits(self) -> bool | None:
        """Whether the peaks are below the memory of the target; None: it is unknown."""
        device, ram = self.target.device_bytes, self.target.ram_bytes
        if device is not None and self.device_bytes > device * (1 - MARGIN):
            return False
        if ram is not None and self.host_bytes > ram:
            return False
        return None if ram is None or (device is None and self.target.device != "cpu") else True

    def as_json(self) -> dict[str, Any]:
        """The facts of `plan --json`."""
        return {
            "engine": self.engine,
            "ranks": self.target.ranks,
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
    try:
        with read_subject(resolved) as subject:
            return predict(resolved, subject, described.target(resolved))
    except DataError as error:
        raise about_data(error) from error
    except SettingError as error:
        raise SettingsError([about_setting(error, resolved)]) from error
    except EngineError as error:
        raise SettingsError.of(str(error), key="engine.name") from error


def predict(resolved: Resolved, subject: Subject, target: Target) -> Plan:
    """The plan of `resolved`, whose task is `subject`, on `target`.

    Imports no DeepSpeed and opens no process group that outlives the call.
    """
    settings, numbers = resolved.settings, resolved.batching
    process_bytes = psutil.Process().memory_info().rss
    options = _on_cpu(engine_options(settings, resolved, subject.task.channels_last))
    found = _trace_compiled_or_not(resolved, subject, target, options)
    trace, checkpoint_bytes, why, uncompiled = found
    placed = _placed(
        settings.engine.name, trace, Ranks(target.ranks, numbers.accumulation), options
    )
    on_host = placed.offloaded_bytes + (placed.device_bytes if target.device == "cpu" else 0)
    forked = _forked_bytes(placed, target) if settings.loader.workers else 0
    ahead = settings.loader.workers * settings.loader.prefetch * _batch_bytes(subject)
    return Plan(
        engine=settings.engine.name,
        target=target,
        device=placed.device,
        offloaded_bytes=placed.offloaded_bytes,
        host_bytes=target.ranks_per_node * (process_bytes + on_host + ahead + forked),
        sent_bytes=placed.sent_bytes,
        checkpoint_bytes=checkpoint_bytes,
        parameters=trace.parameters,
        trainable=trace.trainable,
        flops=trace.flops,
        global_batch=numbers.global_batch,
        micro_batch=numbers.micro_batch,
        steps=subject.train_plan.end_step,
        steps_per_epoch=subject.train_plan.steps_per_epoch,
        seconds=_seconds(resolved, subject, target, trace, placed),
        untraced=why,
        uncompiled=uncompiled,
    )


def _forked_bytes(placed: Placed, target: Target) -> int:
    """Bytes of the weights in host memory.

    Loader workers are forks: they keep the pages of the weights as they were at their start, which
    the next update copies. All workers share these. Pinned memory is not inherited.
    """
    return placed.device[Kind.WEIGHTS] if target.device == "cpu" else 0


def _seconds(
    resolved: Resolved, subject: Subject, target: Target, trace: StepTrace, placed: Placed
) -> Seconds:
    if target.gpu is None:
        return UNKNOWN
    accumulation = resolved.batching.accumulation
    return time.by_data_sheet(
        target.gpu,
        resolved.settings.precision,
        target,
        resolved.settings.engine.name,
        trace.parameters,
        Work(
            trace.flops,
            time.moved_bytes(placed.device, trace.trainable, accumulation),
            placed.sent_bytes,
        ),
        subject.train_plan,
        len(subject.task.data("val")),
    )


def _on_cpu(options: Options) -> Options:
    """`options` with a precision that the CPU has, and tensors of the same size."""
    alike = {"tf32": "fp32", "fp8": "bf16"}
    precision: Any = alike.get(options.precision, options.precision)
    # Stage 3 of ZeRO is not compiled: its hooks break the graph before and after every layer.
    compiles = options.compile and options.ds_config.get("zero_optimization", {}).get("stage") != 3
    return replace(options, precision=precision, compile=compiles)


def _trace_compiled_or_not(
    resolved: Resolved, subject: Subject, target: Target, options: Options
) -> tuple[StepTrace, int, Untraced | None, str | None]:
    """The trace of a compiled step if it is one, otherwise or where that fails as it is."""
    why = None
    if options.compile:
        try:
            with compiled.without_kernels() as programs:
                found = _trace(resolved, subject, target, options)
            if programs.count:
                return *found, None, None
            why = "torch compiled nothing"
        except SettingError:
            raise
        except compiled.ERRORS as error:
            why = compiled.describe(error)
        options = replace(options, compile=False)
    return *_trace_or_measure(resolved, subject, target, options), why


def _trace_or_measure(
    resolved: Resolved, subject: Subject, target: Target, options: Options
) -> tuple[StepTrace, int, Untraced | None]:
    """The trace on fake tensors, or where the step depends on values, that of a real step."""
    try:
        return *_trace(resolved, subject, target, options), None
    except SettingError:
        raise
    except untraced.ERRORS as error:
        real = replace(subject, is_fake=False)
        return *_trace(resolved, real, target, options), untraced.describe(error)


def _trace(
    resolved: Resolved, subject: Subject, target: Target, options: Options
) -> tuple[StepTrace, int]:
    """The trace of fsdp itself, and for other engines that of local."""
    settings, name = resolved.settings, resolved.settings.engine.name
    checkpoints: list[int] = []

    def change(model: Module) -> None:
        checkpoints.append(room.checkpoint_bytes(model, settings, only_trained=False))
        if name.startswith("zero") and (dtype := DTYPES.get(options.precision)):
            norms_in_fp32(model)
            round_weights(model, dtype)

    if name.startswith("fsdp"):
        with _fake_world(target) as world:
            engine: Engine = FSDP(world, options, offload=name == "fsdp-offload")
            trace = trace_step(subject, engine, change)
    else:
        trace = trace_step(subject, local(ProcessWorld(RankInfo(), _CPU, 0.0), options), change)
    return trace, checkpoints[0]


@contextmanager
def _fake_world(target: Target) -> Iterator[World]:
    """Rank 0 of a process group whose other ranks do not exist: nothing is sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    size = target.ranks
    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield ProcessWorld(RankInfo(0, size, 0, target.ranks_per_node, 0), _CPU, 0.0)
    finally:
        dist.destroy_process_group()


def _placed(name: str, trace: StepTrace, ranks: Ranks, options: Options) -> Placed:
    place: dict[str, Any] = {
        "local": partial(placement.as_traced, trace, ranks),
        "fsdp": partial(placement.as_traced, trace, ranks),
        "fsdp-offload": partial(placement.as_traced, trace, ranks, offloads=True),
        "ddp": partial(placement.replicated, trace, ranks),
        "oss": partial(placement.replicated, trace, ranks, shards_optimizer=True),
    }
    if name in place:
        return place[name]()
    return zero(trace, ranks, options.ds_config["zero_optimization"])


def _batch_bytes(subject: Subject) -> int:
    leaves = tree_leaves(subject.micro_batch.batch)
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
