"""Out of memory, and throttling steps there and at a resource limit: the run need not end."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from gearshift.training.callbacks.base import Action
from gearshift.training.resources import memory

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine
    from gearshift.training.callbacks.base import CallbackList
    from gearshift.training.data.loader import Batches, EvaluationBatches
    from gearshift.training.step_metrics import StepTimer

T = TypeVar("T")
MAX_HALVINGS = 3
"""How often a run halves its micro-batch because memory ran out.

Where ranks have ended, launcher/run/execute.py starts them again with smaller ones.
"""
_MESSAGES = re.compile(
    r"can't allocate memory|cannot allocate memory|std::bad_alloc|\bMemoryError\b"
    r"|MPS backend out of memory|CUDA error: out of memory"
    r"|_STATUS_(ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"  # cuBLAS, cuDNN, ...
    r"|Cuda failure (\d+ )?'out of memory'",  # NCCL
    re.IGNORECASE,
)


class BatchSizes(Protocol):
    """The batch numbers of the training batches."""

    @property
    def global_batch(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...
    @property
    def smaller(self) -> int | None:
        """The next smaller micro-batch; None: there is none."""


class OutOfMemory(RuntimeError):
    """Memory ran out and this process alone cannot continue; the message has the fix."""

    def __init__(self, error: BaseException, batches: BatchSizes):
        size = batches.micro_batch
        smaller = batches.smaller
        self.micro_batch = size
        advice = "hint          a smaller model, shorter samples, or  --resource-efficient"
        if smaller is not None:
            total = batches.global_batch
            advice = f"fix           --batch-size {smaller} --set train.global_batch={total}"
        super().__init__(
            f"out of memory with a micro-batch of {size}: {first_line(error)}\n  {advice}"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a failed allocation, on the host or on a device.

    The allocators of the CPU and of mps, CUDA's libraries and NCCL only say so in their message;
    so does the failed write of a checkpoint.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and bool(_MESSAGES.search(str(error)))


def first_line(error: BaseException) -> str:
    """The first line of its message, or else the name of its type."""
    return str(error).partition("\n")[0] or type(error).__name__


class Throttle:
    """Takes throttling steps. Collective.

    Losses do not change: the order of the data is cut into global batches, and the randomness of a
    sample comes from its index, so neither depends on workers or micro-batches. Random numbers of
    the model itself, such as dropout, are drawn per micro-batch.
    """

    def __init__(
        self,
        engine: Engine,
        module: Module,
        callbacks: CallbackList,
        timer: StepTimer,
        batches: Batches,
        validation: Sequence[EvaluationBatches],
    ):
        self._engine = engine
        self._callbacks = callbacks
        self._timer = timer
        self._batches = batches
        self._validation = validation
        self._buffers: list[tuple[Module, str]] = []
        for owner in module.modules():
            for name, _ in owner.named_buffers(recurse=False):
                if name not in owner._non_persistent_buffers_set:  # constants
                    self._buffers.append((owner, name))
        self._halvings = 0

    def run(self, actions: Action, step: int) -> bool:
        """Take the agreed throttling steps in `actions` after `step` updates, and release memory.

        True: batches already taken for the next step must be taken again.
        """
        batches = self._batches
        workers = max(batches.workers, *(source.workers for source in self._validation))
        has_fewer = Action.FEWER_WORKERS in actions and workers > 0
        is_smaller = Action.SMALLER_BATCH in actions and batches.smaller is not None
        with self._timer.paused():
            if has_fewer:
                self._callbacks.event("fewer_workers", {"from": workers, "to": workers // 2})
                batches.begin(step, workers=batches.workers // 2)
                for source in self._validation:
                    source.use_workers(source.workers // 2)
                workers //= 2
            if is_smaller:
                self._halve_micro_batch(step)
            memory.release_unused(self._engine.world.device)
        available = Action.NOTHING
        if workers:
            available |= Action.FEWER_WORKERS
        if batches.smaller:
            available |= Action.SMALLER_BATCH
        self._callbacks.throttled(available)
        return has_fewer or is_smaller

    def without_oom(self, accumulate: Callable[[], T], step: int) -> T | None:
        """Call `accumulate`; None: memory ran out, take smaller micro-batches of the same step.

        `step` updates are done. Raises what `accumulate` raises after MAX_HALVINGS, or if the
        engine cannot retry a step: other ranks would wait in a collective for a rank that failed.
        """
        is_possible = self._engine.can_retry_step and self._batches.smaller is not None
        changing = []
        if is_possible:
            for owner, name in self._buffers:
                if owner.training:
                    buffer = getattr(owner, name)
                    changing.append((owner, name, buffer, buffer.clone()))
        try:
            return accumulate()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or not is_possible or self._halvings == MAX_HALVINGS:
                raise
            facts = {"at": step + 1, "text": first_line(error)}
        # After the handler: until here the error held the frames of the pass, and their tensors.
        self._halvings += 1
        self._engine.discard()
        for owner, name, buffer, before in changing:
            # Statistics and counters: the failed pass was none, and may have put others in place.
            setattr(owner, name, buffer.copy_(before))
        self._callbacks.event("out_of_memory", facts)
        with self._timer.paused():
            memory.release_unused(self._engine.world.device)
            self._halve_micro_batch(step)
        return None

    def _halve_micro_batch(self, step: int) -> None:
        batches = self._batches
        before = batches.micro_batch
        smaller = batches.smaller
        assert smaller is not None, "only requested while available"
        batches.begin(step, micro_batch=smaller)
        self._engine.resize(smaller, batches.accumulation)
        self._callbacks.event(
            "smaller_micro_batch",
            {"from": before, "to": smaller, "accumulation": batches.accumulation},
        )
