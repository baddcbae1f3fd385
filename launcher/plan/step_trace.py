"""One optimizer step of a task, traced on fake tensors: memory, traffic and operations."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn import Module
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import DefaultDeviceType

from gearshift.engines.activation_offload import Moved
from gearshift.engines.base import Engine
from gearshift.engines.frozen_weights import round_weights
from gearshift.engines.norms import norms_in_fp32
from gearshift.engines.state import WEIGHT, stored
from gearshift.launcher.plan.equal_blocks import EqualBlocks
from gearshift.launcher.plan.storages import Kind, Moments, Phase, Storages
from gearshift.models.base import Batch, HasFrozenEncoder, Task
from gearshift.training.accumulate import accumulate, total_units
from gearshift.training.checkpoint import base_weights, retention
from gearshift.training.data.samples import MicroBatch
from gearshift.training.inspection import quantized_elements
from gearshift.training.optim import low_bit, optimizer
from gearshift.training.optim.updater import Updater
from gearshift.training.settings import TrainingSettings
from gearshift.training.train_plan import TrainPlan

_LruCache = type(lru_cache(len))
_NO_TENSORS = {"torch", *sys.stdlib_module_names}
"""Packages whose caches stay, beside our launcher, which holds the classes of settings."""
MICRO_BATCHES = 2
"""Traced of a step at most: those after the second have the same peak."""
UNTRACED_ERRORS = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
)
"""What a step may raise because its tensors have no values: torch's DynamicOutputShapeException,
DataDependentOutputException and UnsupportedFakeTensorException are RuntimeErrors, and numbers that
were made up lead to others."""
_PACKAGE = Path(__file__).parents[2]
_TRAINING = tuple(str(_PACKAGE / name) for name in ("launcher", "engines", "training"))


@dataclass(frozen=True)
class Subject:
    """What is traced: the training of a task on one rank."""

    task: Task
    settings: TrainingSettings
    train_plan: TrainPlan
    micro_batch: MicroBatch
    """Tensors on the CPU."""
    is_fake: bool = True
    """Without values: nothing is allocated and nothing computed."""
    encoded: Batch | None = None
    """Inputs that a frozen encoder computes at a time before the first step: the feature cache."""


@dataclass(frozen=True)
class StepTrace:
    """What a step does on one rank."""

    moments: Moments
    """From the end of the step before to the end of this one; first those of encoding features."""
    sizes: Sequence[int]
    """Elements of each parameter, in the order of the model."""
    groups: Sequence[Sequence[int]]
    """Elements of each trained parameter, by group of the optimizer."""
    weight_bytes: int
    """Of the whole model, before the engine changes it."""
    slot_bytes: int
    """Of the optimizer state of this rank."""
    flops: float
    """Of all micro-batches of the step."""
    launches: float
    """Kernels that a GPU would start in the step, not compiled."""
    sent: float = 0.0
    """Bytes that a rank sends in the step."""
    quantized: int = 0
    """Weights in 4 bits, which are no parameters."""
    buffer_bytes: int = 0
    """Of the buffers of the model, with those of weights in 4 bits: each rank has all."""
    offloaded: int = 0
    """Bytes of activations of a micro-batch in host memory."""
    checkpoint_bytes: int = 0
    process_bytes: int = 0
    """Host memory of the process once the model was built without values."""

    @property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return sum(self.sizes)

    @property
    def trainable(self) -> int:
        """Elements of the trained parameters."""
        return sum(map(sum, self.groups))


def trace_step(
    subject: Subject,
    engine: Engine,
    *,
    rounding: torch.dtype | None = None,
    repeats: bool = False,
    repeats_blocks: bool = False,
) -> StepTrace:
    """Trace a late step, whose optimizer has its state, under `engine`, on the CPU.

    `rounding`: of the weights, as DeepSpeed keeps them beside those in fp32. `repeats`: all
    micro-batches of a step do the same under this engine, so one is traced; `repeats_blocks`: and
    equal blocks of the model. Raises what the step raises; torch's DynamicOutputShapeException and
    DataDependentOutputException if it depends on values.
    """
    task = subject.task
    plan = subject.train_plan
    traced = 1 if repeats else min(MICRO_BATCHES, plan.accumulation)
    storages = Storages(subject.is_fake)
    with cleared_caches(), storages.resizes():
        model = build(task, storages)
        process_bytes = psutil.Process().memory_info().rss
        checkpoint_bytes = retention.checkpoint_bytes(
            model, subject.settings, only_trained=base_weights.has_adapters(task)
        )
        if rounding is not None:
            norms_in_fp32(model)
            round_weights(dict(model.named_parameters()), rounding, keeps=False)
        # Without references to them: an engine may replace and free parameters.
        sizes = [p.numel() for p in model.parameters()]
        weight_bytes = sum(p.nbytes for p in model.parameters())
        buffer_bytes = sum(b.nbytes for b in model.buffers())
        quantized = quantized_elements(model)
        with storages:
            module = _prepared(subject, engine, model)
            # The codes of low-bit states are read by the dispatcher.
            slot_bytes = _label_state(
                engine,
                module,
                storages,
                is_plain=repeats and subject.settings.optim.state == "fp32",
            )
            updater = Updater(subject.settings, plan)
            updater.start(engine)
        batches = _micro_batches(subject, storages)

        start = len(storages.changes)
        if subject.encoded is not None:
            _encode(subject.task, module, copied(subject.encoded, storages), storages)
        encoding = len(storages.changes) - start
        storages.restart_counts()
        if repeats_blocks and subject.is_fake:
            EqualBlocks(task.blocks(model), storages)
        _take_step(subject, engine, module, updater, batches[:traced], storages)

    groups = []
    for group in engine.groups:
        groups.append([p.numel() for p in group["params"]])
    moments = storages.moments(start)
    if repeats and plan.accumulation > 1:
        moments = _with_second_micro_batch(moments, encoding)
    return StepTrace(
        moments,
        sizes,
        groups=groups,
        weight_bytes=weight_bytes,
        slot_bytes=slot_bytes,
        flops=storages.flops * plan.accumulation / traced,
        launches=_launches(storages, plan.accumulation / traced),
        sent=storages.sent + (plan.accumulation - traced) * storages.sent_before_last,
        quantized=quantized,
        buffer_bytes=buffer_bytes,
        offloaded=storages.host_bytes,
        checkpoint_bytes=checkpoint_bytes,
        process_bytes=process_bytes,
    )


def _prepared(subject: Subject, engine: Engine, model: Module) -> Module:
    task = subject.task
    blocks = task.blocks(model)
    spec = optimizer.spec(subject.settings, model, engine.world, blocks, task)
    return engine.prepare(model, spec, blocks)


def _launches(storages: Storages, times: float) -> float:
    """The kernels of a step with so many times the traced micro-batches, and one update."""
    of_update = storages.launches[Phase.UPDATE]
    return (storages.launches.total() - of_update) * times + of_update


def _label_state(engine: Engine, module: Module, storages: Storages, is_plain: bool) -> int:
    """Label what the engine holds between steps; the bytes of its optimizer state.

    `is_plain`: views need no dispatcher. One of a fake tensor takes half a millisecond with it, and
    there are thousands.
    """
    with no_dispatch() if is_plain else nullcontext():
        slots = [piece.data for piece in engine.state().pieces if piece.kind != WEIGHT]
        storages.label(slots, Kind.OPTIMIZER)
        storages.label([*module.parameters(), *module.buffers()], Kind.WEIGHTS)
        return sum(part.nbytes for part in chain.from_iterable(map(stored, slots)))


def _micro_batches(subject: Subject, storages: Storages) -> list[MicroBatch]:
    """Those that a rank holds in a step."""
    count = subject.train_plan.accumulation
    if subject.train_plan.world_size > 1:
        count *= 2  # those of the next step as well: the ranks agree on it early
    batch = subject.micro_batch.batch
    num_units = subject.micro_batch.num_units
    return [MicroBatch(copied(batch, storages), num_units) for _ in range(count)]


def _encode(task: Task, module: Module, inputs: Batch, storages: Storages) -> None:
    """Compute the features of a frozen encoder, as the feature cache does before the first step."""
    assert isinstance(task, HasFrozenEncoder)
    with storages.computing(), torch.no_grad(), storages.during(Phase.FORWARD):
        task.encode(module, inputs)


def _take_step(
    subject: Subject,
    engine: Engine,
    module: Module,
    updater: Updater,
    batches: Sequence[MicroBatch],
    storages: Storages,
) -> None:
    """The last step of the training plan, of these micro-batches."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(storages.complete)
    step = max(subject.train_plan.total_steps - 1, 0)
    updater.prepare(subject.task, engine, step)
    units = total_units([batch.num_units for batch in batches])
    with storages.computing(), _offload_recorded(storages), storages.during(Phase.BACKWARD):
        losses = accumulate(subject.task, engine, module, batches, units, storages.enter)
    gradients = (p.grad for p in module.parameters() if p.grad is not None)
    storages.label(gradients, Kind.GRADIENTS)
    with storages, equal_updates_once(storages), storages.during(Phase.UPDATE):
        updater.take(engine, losses, step + 1)


@contextmanager
def equal_updates_once(storages: Storages) -> Iterator[None]:
    """Inside, a low-bit update is traced once for all parameters of the same shapes.

    That of 8B parameters has 2,000 parts of 200 operators. For the later parameters what the first
    one held at most is allocated at once, and its kernels are counted: peak and time stay the same.
    """
    update = low_bit.update_parts
    known: dict[Any, tuple[int, int]] = {}

    def update_parts(weights: Tensor, gradient: Tensor, *others: Any) -> None:
        key = (len(weights), weights.dtype, gradient.dtype)
        phase = storages.phase
        if key in known:
            most_bytes, launches = known[key]
            weights.new_empty(most_bytes, dtype=torch.uint8)
            storages.launches[phase] += launches
            return
        start = len(storages.changes)
        launches = storages.launches[phase]
        update(weights, gradient, *others)
        known[key] = storages.most_bytes(start), storages.launches[phase] - launches

    with patch.object(low_bit, "update_parts", update_parts):
        yield


def _with_second_micro_batch(moments: Moments, encoding: int) -> Moments:
    """With a micro-batch like the first after it, which adds to complete gradients.

    `encoding`: the number of moments before the first one.
    """
    end = int(np.argmax(moments.phase == Phase.UPDATE)) or len(moments.phase)
    second = Moments(*(array[encoding:end].copy() for array in moments))
    second.held[:, Kind.GRADIENTS] = moments.held[end - 1, Kind.GRADIENTS]
    arrays = [
        np.concatenate([array[:end], inserted, array[end:]])
        for array, inserted in zip(moments, second, strict=True)
    ]
    return Moments(*arrays)


@contextmanager
def hidden_gpus() -> Iterator[None]:
    """Inside, torch has the CPU only.

    Its optimizers and its compiler ask a GPU about tensors of the CPU, too, and fake ones: that
    makes a context on the GPU, and fails in a fork of a process with one.
    """
    with ExitStack() as stack:
        for backend in (torch.cuda, torch.xpu):
            stack.enter_context(patch.object(backend, "is_available", lambda: False))
            stack.enter_context(patch.object(backend, "device_count", lambda: 0))
        none = patch.object(torch.accelerator, "current_accelerator", lambda *_, **__: None)
        stack.enter_context(none)
        # Checkpointing asks once, and remembers the answer.
        stack.enter_context(patch.object(DefaultDeviceType, "_default_device_type", "cpu"))
        yield


def build(task: Task, storages: Storages) -> Module:
    """The model. What cannot move or convert fake tensors is replaced."""

    def set_data(parameter: Tensor, converted: Tensor) -> None:
        parameter.data = converted.data

    whole = patch.object(nn.utils, "skip_init", lambda kind, *args, **kw: kind(*args, **kw))
    with storages.computing(), whole, patch.object(torch.utils, "swap_tensors", set_data):
        return task.build()


def copied(batch: Batch, storages: Storages) -> Batch:
    """`batch` with copies of its tensors, which are activations."""

    def copy(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        mode = storages.mode
        # A new one: the mode has one fake tensor for each real one.
        new = value.clone() if mode is None else mode.from_tensor(torch.empty_like(value))
        storages.label([new], Kind.ACTIVATIONS)
        return new

    return tree_map(copy, batch)


@contextmanager
def cleared_caches() -> Iterator[None]:
    """At its end, empty the caches of functions: fake tensors in them would reach a training.

    Not those that the garbage collector knows: it may be frozen.
    """
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if _keeps_caches(name) or not isinstance(module, ModuleType):
                continue
            values = list(vars(module).values())
            for value in values.copy():
                if isinstance(value, type):
                    values += vars(value).values()  # of its methods
            for cache in values:
                if type(cache) is _LruCache and not _keeps_caches(cache.__module__):
                    cache.cache_clear()


def _keeps_caches(module: str) -> bool:
    return module.startswith("gearshift.launcher.") or module.partition(".")[0] in _NO_TENSORS


@contextmanager
def _offload_recorded(storages: Storages) -> Iterator[None]:
    """Inside, buffers for offloaded activations are in host memory, and return as activations."""
    original = Moved.copied

    def copied(moved: Moved, source: Tensor, to_host: bool) -> Tensor:
        if to_host:
            storages.is_host = True
            size = 2 ** (source.numel() - 1).bit_length()  # as torch allocates pinned memory
            target = torch.empty(size, dtype=torch.uint8)[: source.numel()]
            storages.is_host = False
            return target.copy_(source)
        target = original(moved, source, to_host)
        storages.label([target], Kind.ACTIVATIONS)
        return target

    with patch.object(Moved, "copied", copied):
        yield


def cause_of(error: BaseException) -> str:
    """The operation that raised `error`, and the innermost line of the task that called it."""
    function = getattr(error, "func", None) or next(iter(error.args), type(error).__name__)
    operation = str(function).strip().split("\n")[0]
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        is_library = "site-packages" in frame.filename or frame.filename.startswith("<")
        if not is_library and not frame.filename.startswith(_TRAINING):
            where = f" at {frame.filename}:{frame.lineno}: {frame.line}"
    return f"{operation}{where}"
