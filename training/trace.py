"""The trace of a replay: what each step reads and computes, in digests that shards add up to."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from gearshift.engines.state import WEIGHT
from gearshift.training.checkpoint.tensor_file import BUFFER
from gearshift.training.data.samples import add

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine, Update
    from gearshift.models.base import Task
    from gearshift.training.data.loader import Batches
    from gearshift.training.data.samples import MicroBatch

SAMPLE = "sample"
DRAW = "draw"
OUTPUT = "output"
LOSS = "loss"
GRADIENT = "gradient"
OPTION = "option"
OPTIMIZER = "optimizer"
OF_SPLIT = (OUTPUT, LOSS)
"""What depends on how a batch is split over processes and micro-batches."""
OF_STATE = (OPTIMIZER, WEIGHT, BUFFER)
"""What ranks hold parts of, which add up."""
_BUCKETS = 16
_AT_ONCE = 2**22
# Constants of SplitMix (Steele, Lea and Flood, 2014), as signed numbers of 64 bits.
_FACTORS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_NOT_COMPARED = ("params", "names", "foreach", "fused", "capturable", "differentiable")

Summary = list[float]
"""Of a tensor: a digest of its bits, the number of its elements, and a sketch of their values.
Those of its parts add up to that of the whole."""


def summary(values: Tensor, start: int = 0) -> Summary:
    """The summary of elements of a tensor, the first of which is its element `start`.

    The sketch (Charikar, Chen and Farach-Colton, Finding Frequent Items in Data Streams, 2002) adds
    each element with a random sign to one of a few buckets: the norm of the difference of two
    sketches is about that of the difference of the tensors.
    """
    flat = values.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    digest = 0
    sketch = torch.zeros(_BUCKETS, dtype=torch.float64, device=flat.device)
    for first in range(0, len(flat), _AT_ONCE):
        part = flat[first : first + _AT_ONCE].contiguous()
        places = torch.arange(len(part), device=part.device) + (start + first)
        keys = _mixed(places)
        bits = part.view(_INTEGERS[part.itemsize]).long()
        digest += int(_mixed(bits ^ keys).sum())
        signs = 1.0 - 2.0 * (keys & 1)
        sketch.index_add_(0, (keys >> 8) % _BUCKETS, part.double() * signs)
    return [_wrapped(digest), len(flat), *sketch.tolist()]


def _mixed(values: Tensor) -> Tensor:
    """Scrambled numbers of 64 bits."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        values = (values ^ (values >> shift)) * factor
    return values ^ (values >> 31)


def _wrapped(number: int) -> int:
    """`number` modulo 2 to the power of 64."""
    return number % 2**64


def added(first: Sequence[float], second: Sequence[float]) -> Summary:
    """The summary of a tensor from those of two parts."""
    total = [a + b for a, b in zip(first, second, strict=True)]
    return [_wrapped(int(total[0])), *total[1:]]


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """About the norm of the difference of two tensors over the larger of their norms."""
    if first[1] != second[1]:
        return math.inf
    apart = [a - b for a, b in zip(first[2:], second[2:], strict=True)]
    relative = norm(apart) / (max(norm(first[2:]), norm(second[2:])) or 1.0)
    return relative if math.isfinite(relative) else math.inf


def norm(sketch: Sequence[float]) -> float:
    """About the norm of the tensor."""
    return math.hypot(*sketch)


class Tracer:
    """Writes a line of entries for the state before the first step, and for each step.

    An entry is a kind, a name, and a value to compare. It stands between the loop and what it
    trains with: `engine` and `batches` are what the loop gets instead.
    """

    def __init__(
        self, folder: Path, step: int, task: Task, model: Module, engine: Engine, batches: Batches
    ) -> None:
        self.engine = TracedEngine(engine, self)
        self.batches = TracedBatches(batches, self)
        self._engine = engine
        self._batches = batches
        self._step = step
        self._model = model
        self._generators = dict(_generators(task, model))
        self._is_forward = False
        self._inside: list[bytes] = []
        self._entries: list[tuple[str, str, Any]] = []
        self._file = (folder / f"{engine.world.rank}.jsonl").open("w", encoding="utf-8")
        for name, module in model.named_modules():
            if name:
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(partial(self._leave, name))
        self._add_state()
        self._write()

    def took(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Note the samples of a step."""
        self._entries.clear()  # those of a step that is taken again
        _, share = self._batches.share(self._step)
        for micro_batch, indices in zip(micro_batches, share, strict=False):
            tensors = [leaf for leaf in tree_leaves(micro_batch.batch) if isinstance(leaf, Tensor)]
            rows = [leaf for leaf in tensors if leaf.dim() and len(leaf) == len(indices)]
            for number, index in enumerate(indices):
                self._add(SAMPLE, str(index), _digest([leaf[number].cpu() for leaf in rows]))

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Within, modules compute outputs until `backward`."""
        self._add_draws()
        self._is_forward = True
        try:
            yield
        finally:
            self._is_forward = False

    def backward(self, loss: Tensor) -> None:
        """Note the end of a forward pass."""
        self._is_forward = False  # blocks may be computed again in the backward pass
        self._add_draws()
        self._add(LOSS, "", summary(loss))

    def before_update(self) -> None:
        """Note gradients, the last one first, and the options of the optimizer."""
        for name, parameter in reversed(list(self._model.named_parameters())):
            gradient = parameter.grad
            # Shards are not those of the state: the moments tell of them.
            if gradient is not None and not isinstance(gradient, DTensor):
                self._add(GRADIENT, name, summary(gradient))
        for number, group in enumerate(self._engine.groups):
            for key, value in group.items():
                if key not in _NOT_COMPARED and isinstance(
                    value, bool | int | float | list | tuple
                ):
                    self._add(OPTION, f"{key} of group {number}", value)

    def after_update(self) -> None:
        """Note the state, and write the step."""
        self._step += 1
        self._add_state()
        self._write()

    def _add(self, kind: str, name: str, value: Any) -> None:
        self._entries.append((kind, name, value))

    def _add_draws(self) -> None:
        for name, state in _states(self._generators).items():
            self._add(DRAW, name, _digest(state))

    def _add_state(self) -> None:
        state = self._engine.state()
        parts: dict[tuple[str, str], Summary] = {}
        for piece in state.pieces:
            if piece.replica[0]:
                continue
            key = (WEIGHT, piece.name)
            if piece.kind != WEIGHT:
                key = (OPTIMIZER, f"{piece.kind} of {piece.name}")
            part = summary(piece.data, piece.start)
            parts[key] = added(parts[key], part) if key in parts else part
        for (kind, name), value in parts.items():
            self._add(kind, name, value)
        if self._engine.world.rank == 0:
            for name, buffer in self._model.named_buffers():
                self._add(BUFFER, name, summary(buffer))

    def _write(self) -> None:
        self._file.write(json.dumps({"step": self._step, "entries": self._entries}) + "\n")
        self._file.flush()
        self._entries.clear()

    def _enter(self, *_: object) -> None:
        if self._is_forward:
            self._inside.append(_torch_state(self._engine.world.device))

    def _leave(self, name: str, module: Module, inputs: object, output: object) -> None:
        if not self._is_forward:
            return
        before = self._inside.pop()
        draws = before != _torch_state(self._engine.world.device)
        if draws and self._inside:
            # A module around it draws nothing of its own.
            self._inside = [_torch_state(self._engine.world.device)] * len(self._inside)
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(DRAW if draws else OUTPUT, name, summary(leaf))


class TracedEngine:
    """An engine whose passes and updates are noted; all else is that of the engine."""

    def __init__(self, engine: Engine, tracer: Tracer) -> None:
        self._traced = engine
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._traced, name)

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        """As `Engine.accumulate`."""
        with self._traced.accumulate(last), self._tracer.forward():
            yield

    def backward(self, loss: Tensor) -> None:
        """As `Engine.backward`."""
        self._tracer.backward(loss)
        self._traced.backward(loss)

    def discard(self) -> None:
        """As `Engine.discard`: a step that changes nothing."""
        self._traced.discard()
        self._tracer.after_update()

    def step(self) -> Update:
        """As `Engine.step`."""
        self._tracer.before_update()
        update = self._traced.step()
        self._tracer.after_update()
        return update


class TracedBatches:
    """Batches whose samples are noted as the loop takes them."""

    def __init__(self, batches: Batches, tracer: Tracer) -> None:
        self._traced = batches
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._traced, name)

    def take(self) -> list[MicroBatch]:
        """As `Batches.take`."""
        micro_batches = self._traced.take()
        self._tracer.took(micro_batches)
        return micro_batches


def _digest(value: Any) -> str:
    digest = hashlib.sha256()
    add(digest, value)
    return digest.hexdigest()[:16]


def _generators(task: Task, model: Module) -> Iterator[tuple[str, Any]]:
    """The random generators that a task and its modules keep, by the names of their attributes."""
    owners: list[tuple[str, object]] = [("task", task)]
    owners += [(f"model.{name}".rstrip("."), module) for name, module in model.named_modules()]
    for owner, value in owners:
        for name, attribute in getattr(value, "__dict__", {}).items():
            if isinstance(attribute, random.Random | np.random.Generator | torch.Generator):
                yield f"{owner}.{name}", attribute


def _states(generators: Mapping[str, Any]) -> dict[str, Any]:
    """The states of the global generators on the CPU, and of `generators`."""
    states: dict[str, Any] = {
        "torch": torch.default_generator.get_state(),
        "numpy": str(np.random.get_state(legacy=False)),
        "python": random.getstate(),
    }
    for name, generator in generators.items():
        if isinstance(generator, random.Random):
            states[name] = generator.getstate()
        elif isinstance(generator, np.random.Generator):
            states[name] = str(generator.bit_generator.state)
        else:
            states[name] = generator.get_state()
    return states


def _torch_state(device: torch.device) -> bytes:
    generator = torch.default_generator
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
    return generator.get_state().numpy().tobytes()
