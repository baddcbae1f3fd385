"""One optimizer step of a task, traced on fake tensors: memory, traffic and operations."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from unittest.mock import patch
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Module
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import DefaultDeviceType

from engines import pinned
from engines.activation_offload import Copies
from engines.base import Engine
from engines.state import WEIGHT, stored
from launcher.plan.storages import Kind, Moment, Phase, Storages
from models.base import Batch, HasFrozenEncoder, Task
from training.accumulate import accumulate, total_units
from training.data.samples import MicroBatch
from training.inspection import quantized_elements
from training.optim import optimizer
from training.optim.updater import Updater
from training.settings import TrainingSettings
from training.train_plan import TrainPlan

_LruCache = type(lru_cache(len))
_NO_TENSORS = {"torch", "launcher", *sys.stdlib_module_names}
"""Packages whose caches stay. That of launcher holds the classes of settings."""
_known_caches: WeakKeyDictionary[ModuleType, tuple[int, Sequence[Any]]] = WeakKeyDictionary()
"""With the number of names of the module: looking through torch takes 0.1 s."""
MICRO_BATCHES = 2
"""Traced of a step at most: those after the second have the same peak."""


UNTRACED_ERRORS = (
    *(RuntimeError, TypeError, ValueError),
    *(LookupError, ArithmeticError, AssertionError),
)
"""What a step may raise because its tensors have no values: torch's DynamicOutputShapeException,
DataDependentOutputException and UnsupportedFakeTensorException are RuntimeErrors, and numbers that
were made up lead to others."""
_ROOT = Path(__file__).parents[2]
_TRAINING = tuple(str(_ROOT / name) for name in ("launcher", "engines", "training"))


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

    moments: Sequence[Moment]
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

    @property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return sum(self.sizes)

    @property
    def trainable(self) -> int:
        """Elements of the trained parameters."""
        return sum(map(sum, self.groups))

    @property
    def peak(self) -> Moment:
        """The moment with the most bytes."""
        return max(self.moments, key=lambda moment: moment.total)


def trace_step(
    subject: Subject,
    engine: Engine,
    change: Callable[[Module], None] | None = None,
    *,
    repeats: bool = False,
) -> StepTrace:
    """Trace a late step, whose optimizer has its state, under `engine`, on the CPU.

    `change` is called with the model before the engine gets it. `repeats`: all micro-batches of a
    step do the same under this engine, so one is traced. Raises what the step raises; torch's
    DynamicOutputShapeException and DataDependentOutputException if it depends on values.
    """
    task, settings, world = subject.task, subject.settings, engine.world
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    storages = Storages(mode)
    tracing = _Tracing(storages, mode, subject.is_fake)
    with storages.resizes():
        with tracing.computing(), _changed_torch():
            model = task.build()
        if change is not None:
            change(model)
        # Without references to them: an engine may replace and free parameters.
        sizes = [p.numel() for p in model.parameters()]
        weight_bytes = sum(p.nbytes for p in model.parameters())
        buffer_bytes = sum(b.nbytes for b in model.buffers())
        quantized = quantized_elements(model)
        blocks = task.blocks(model)
        with storages:
            spec = optimizer.spec(settings, model, world, blocks, task)
            module = engine.prepare(model, spec, blocks)
            slot_bytes = _label_state(engine, module, storages)
            updater = Updater(settings, subject.train_plan)
            updater.start(engine)
        accumulation = subject.train_plan.accumulation
        # Several ranks hold those of the next step as well: they agree on it early.
        steps = 2 if subject.train_plan.world_size > 1 else 1
        batches = [tracing.micro_batch(subject.micro_batch) for _ in range(steps * accumulation)]
        before = storages.changes
        if subject.encoded is not None:
            assert isinstance(task, HasFrozenEncoder)
            given = tracing.copied(subject.encoded)
            with tracing.computing(), torch.no_grad(), storages.during(Phase.FORWARD):
                task.encode(module, given)
            del given
        encoding = list(storages.moments(before)) if subject.encoded is not None else []
        start = storages.changes
        flops = storages.flops
        storages.launches.clear()
        storages.sent = 0.0
        traced = 1 if repeats else min(MICRO_BATCHES, accumulation)
        forward = _Forward(storages)
        _step(subject, engine, module, updater, batches[:traced], tracing, forward)
    moments = list(storages.moments(start))
    update = storages.launches[Phase.UPDATE]
    passes = storages.launches.total() - update
    if traced < min(MICRO_BATCHES, accumulation):
        moments = _repeated(moments)
    return StepTrace(
        encoding + moments,
        sizes,
        [[p.numel() for p in group["params"]] for group in engine.groups],
        weight_bytes,
        slot_bytes,
        (storages.flops - flops) * accumulation / traced,
        passes * accumulation / traced + update,
        storages.sent + (accumulation - traced) * forward.sent_before_last,
        quantized,
        buffer_bytes,
        storages.host_bytes,
    )


def encoded(
    task: HasFrozenEncoder, inputs: Callable[[], Batch]
) -> tuple[Batch, Mapping[str, Tensor]] | None:
    """Inputs of the frozen encoder of `task`, and what it gives for them, without values.

    None: the encoder is trained, or needs values. Raises DataError as `inputs` does.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    tracing = _Tracing(Storages(mode), mode, is_fake=True)
    try:
        with tracing.computing(), _changed_torch():
            model = cast(Task, task).build()
        if task.frozen_encoder(model) is None:
            return None
        batch = inputs()
        given = tracing.copied(batch)
        with tracing.computing(), torch.no_grad():
            return batch, task.encode(model, given)
    except UNTRACED_ERRORS:
        return None


def _repeated(moments: Sequence[Moment]) -> list[Moment]:
    """A step of two micro-batches from that of one: the second adds to complete gradients."""
    end = next((n for n, m in enumerate(moments) if m.phase is Phase.UPDATE), len(moments))
    complete = {Kind.GRADIENTS: moments[end - 1].held[Kind.GRADIENTS]}
    again = [replace(moment, held={**moment.held, **complete}) for moment in moments[:end]]
    return [*moments[:end], *again, *moments[end:]]


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


@contextmanager
def _changed_torch() -> Iterator[None]:
    """Inside, fake models can be built and converted."""
    skip = patch.object(nn.utils, "skip_init", _whole)
    with skip, patch.object(torch.utils, "swap_tensors", _set_data):
        yield


def _whole(kind: type[Module], *args: Any, **kwargs: Any) -> Module:
    """As skip_init, which cannot move fake tensors from the meta device."""
    return kind(*args, **kwargs)


def _set_data(parameter: Tensor, converted: Tensor) -> None:
    """For swap_tensors in `Module.to`, which refuses fake tensors that an operator has changed."""
    parameter.data = converted.data


@dataclass(frozen=True)
class _Tracing:
    storages: Storages
    mode: FakeTensorMode
    is_fake: bool

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, new tensors are fake, and all are recorded."""
        with ExitStack() as stack:
            if self.is_fake:
                stack.callback(_clear_caches)
                stack.enter_context(self.mode)
            stack.enter_context(self.storages)  # after the mode: it sees what the mode returns
            yield

    def micro_batch(self, given: MicroBatch) -> MicroBatch:
        """`given` with copies of its tensors."""
        return MicroBatch(self.copied(given.batch), given.num_units)

    def copied(self, batch: Batch) -> Batch:
        """`batch` with copies of its tensors."""

        def copied(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            # A new one: the mode has one fake tensor for each real one.
            return self.mode.from_tensor(torch.empty_like(value)) if self.is_fake else value.clone()

        made = tree_map(copied, batch)
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)]
        self.storages.label(tensors, Kind.ACTIVATIONS)
        return made


def _clear_caches() -> None:
    """Empty the caches of functions and methods: fake tensors in them would reach a training."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and _package(name) not in _NO_TENSORS:
            for cache in _caches_of(module):
                cache.cache_clear()


def _caches_of(module: ModuleType) -> Sequence[Any]:
    """The caches in a module and its classes, looked for again once it has more or fewer names."""
    known = _known_caches.get(module)
    if known is None or known[0] != len(vars(module)):
        held = list(vars(module).values())
        owners = [held, *(list(vars(x).values()) for x in held if isinstance(x, type))]
        caches = {id(x): x for owner in owners for x in owner if isinstance(x, _LruCache)}
        wanted = [x for x in caches.values() if _package(x.__module__) not in _NO_TENSORS]
        known = _known_caches[module] = (len(vars(module)), wanted)
    return known[1]


def _package(module: str) -> str:
    return module.partition(".")[0]


class _Forward:
    """Enters the forward phase again and again.

    What a backward pass leaves to the next micro-batch are gradients, what a forward pass leaves
    to its backward pass are activations.
    """

    def __init__(self, storages: Storages):
        self._storages = storages
        self.sent_before_last = 0.0
        """Bytes of collectives before the last micro-batch."""

    def __enter__(self) -> None:
        self.sent_before_last = self._storages.sent
        self._storages.keep(Phase.BACKWARD, Kind.GRADIENTS)
        self._storages.computed = 0
        self._phase = self._storages.during(Phase.FORWARD)
        self._phase.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._phase.__exit__(*error)
        self._storages.keep(Phase.FORWARD, Kind.ACTIVATIONS)


def _step(
    subject: Subject,
    engine: Engine,
    module: Module,
    updater: Updater,
    batches: Sequence[MicroBatch],
    tracing: _Tracing,
    forward: _Forward,
) -> None:
    storages, task = tracing.storages, subject.task
    last = max(subject.train_plan.total_steps - 1, 0)
    hooks = _label_gradients(module, storages)
    updater.prepare(task, engine, last)
    units = total_units([batch.num_units for batch in batches])
    with tracing.computing(), _offload_recorded(storages), storages.during(Phase.BACKWARD):
        accumulated = accumulate(task, engine, module, batches, units, forward)
    storages.label((p.grad for p in module.parameters() if p.grad is not None), Kind.GRADIENTS)
    with storages, storages.during(Phase.UPDATE):
        updater.take(engine, accumulated, last + 1)
    for hook in hooks:
        hook.remove()


@contextmanager
def _offload_recorded(storages: Storages) -> Iterator[None]:
    """Inside, buffers for offloaded activations are in host memory, and return as activations."""
    original = Copies.to_device

    def to_host(size: int, device: torch.device) -> Tensor:
        with storages.on_host():
            return torch.empty(size, dtype=torch.uint8)

    def to_device(copies: Copies, host: Tensor, size: int) -> tuple[Tensor, Any]:
        target, event = original(copies, host, size)
        storages.label([target], Kind.ACTIVATIONS)
        return target, event

    with patch.object(pinned, "allocate", to_host), patch.object(Copies, "to_device", to_device):
        yield


def _label_gradients(module: Module, storages: Storages) -> list[Any]:
    def label(parameter: Tensor) -> None:
        assert parameter.grad is not None
        storages.label([parameter.grad], Kind.GRADIENTS)
        storages.computed += parameter.numel()

    trained = (p for p in module.parameters() if p.requires_grad)
    return [p.register_post_accumulate_grad_hook(label) for p in trained]


def _label_state(engine: Engine, module: Module, storages: Storages) -> int:
    """Label weights, buffers and slots; returns the bytes of the slots."""
    slots = [piece.data for piece in engine.state().pieces if piece.kind != WEIGHT]
    storages.label(slots, Kind.OPTIMIZER)
    storages.label([*module.parameters(), *module.buffers()], Kind.WEIGHTS)
    return sum(part.nbytes for slot in slots for part in stored(slot))


@dataclass(frozen=True)
class Untraced:
    """Why a step cannot be traced on tensors without values."""

    operation: str
    """Such as aten.nonzero.default, or what it raised."""
    where: str
    """File, line and text of the task's code; empty: unknown."""


def untraced(error: BaseException) -> Untraced:
    """The operation that raised `error`, and the innermost line of the task that called it."""
    function = getattr(error, "func", None) or (error.args[0] if error.args else None)
    name = str(function).strip().split("\n")[0] if function is not None else ""
    operation = f"{name} needs values" if hasattr(function, "overloads") else name
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        is_library = "site-packages" in frame.filename or frame.filename.startswith("<")
        if not is_library and not frame.filename.startswith(_TRAINING):
            where = f"at {frame.filename}:{frame.lineno}: {frame.line}"
    return Untraced(operation or type(error).__name__, where)
