"""The trace of a replay: digests of what each step reads, draws and computes, on each rank."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gearshift.training.callbacks.base import Action, Callback
from gearshift.training.data.samples import add

if TYPE_CHECKING:
    from torch.nn import Module

    from gearshift.engines.base import Engine
    from gearshift.models.base import Task
    from gearshift.training.callbacks.base import Step
    from gearshift.training.data.samples import MicroBatch

SAMPLE = "sample"
_PHASES = {
    SAMPLE: 0,
    "draw": 1,
    "output": 1,
    "loss": 2,
    "gradient": 3,
    "lr": 4,
    "weight": 6,
    "buffer": 7,
}
"""The kinds of lines, in the order of a step; draws and outputs of layers are in one order, and 5
are all slots of the optimizer."""
_STATES: dict[type, Any] = {
    random.Random: random.Random.getstate,
    np.random.Generator: lambda generator: str(generator.bit_generator.state),
    torch.Generator: torch.Generator.get_state,
}


class Trace(Callback):
    """Writes a line for each thing: its step, phase, kind, name, and digest."""

    def __init__(self, folder: Path, step: int, task: Task, model: Module, engine: Engine) -> None:
        """`step`: the updates taken before."""
        self._step = self._taken = step
        self._task = task
        self._model = model
        self._engine = engine
        self._file = (folder / f"{engine.world.rank}.jsonl").open("w", encoding="utf-8")
        self._add_state()
        for name, module in model.named_modules():
            module.register_forward_hook(partial(self._computed, name))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:  # those of sharded weights are not called
                hook = partial(self._accumulated, name)
                parameter.register_post_accumulate_grad_hook(hook)

    def add(self, kind: str, name: str, value: Any) -> None:
        """Write a line about the present step."""
        digest = hashlib.sha256()
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor):
                leaf = leaf.detach()
                if hasattr(leaf, "to_local"):
                    leaf = leaf.to_local()  # the shard of this rank
                leaf = leaf.cpu()
            add(digest, leaf)
        line = [self._step, _PHASES.get(kind, 5), kind, name, digest.hexdigest()]
        print(json.dumps(line), file=self._file, flush=True)

    def begin(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Note the samples of the next step, and the generators that the task has before it."""
        self._step = self._taken + 1
        for batch, *_, indices in micro_batches:
            tensors = [x for x in tree_leaves(batch) if isinstance(x, Tensor)]
            for row, index in enumerate(indices):
                rows = [x[row] for x in tensors if x.dim() and len(x) == len(indices)]
                self.add(SAMPLE, str(index), rows)
        for owner in (self._task, *self._model.modules()):
            for name, value in vars(owner).items():
                if type(value) in _STATES:
                    self.add("draw", name, _STATES[type(value)](value))

    def step(self, step: Step) -> Action:
        """Note what an update has used and changed."""
        self.add("loss", "", step.loss)
        self.add("lr", "", step.lr)
        self._add_state()
        self._taken = step.step
        return Action.NOTHING

    def _computed(self, name: str, module: Module, inputs: object, output: object) -> None:
        if torch.is_grad_enabled():  # not in an evaluation
            self.add("draw", name, torch.default_generator.get_state())
            self.add("output", name, output)

    def _accumulated(self, name: str, parameter: Tensor) -> None:
        if parameter.grad is not None:  # an engine may have taken it
            self.add("gradient", name, parameter.grad)

    def _add_state(self) -> None:
        for piece in self._engine.state().pieces:
            self.add(piece.kind, piece.name, piece.data)
        for name, buffer in self._model.named_buffers():
            self.add("buffer", name, buffer)
