"""The layers whose numbers depend on how a batch is split over processes and micro-batches."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Module, SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode

from gearshift.launcher.config.machine import detect_machine
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.plan.plan import open_planner
from gearshift.launcher.plan.step_trace import UNTRACED_ERRORS, Subject, cleared_caches, copied
from gearshift.launcher.plan.storages import Storages
from gearshift.launcher.plan.target import Described
from gearshift.models.base import TracksProgress

LOSS = "loss"
"""Stands for a module where a task draws outside of its model."""
_SHARES = ("p", "dropout_p")
"""Arguments of operators with a probability, which draw nothing if it is 0."""


def split_layers(resolved: Resolved, step: int) -> dict[str, list[str]]:
    """The layers that draw random numbers or use the whole micro-batch: their names by class.

    In one forward pass of the training after `step` updates, on a CPU and if possible without
    computing: modules that call a random operator of torch, or change a buffer. If no pass is
    possible there: dropout. And batch normalization. Reads the data, and builds the model. Raises
    SettingsError.
    """
    with open_planner(resolved, Described(detect_machine())) as planner:
        subject = planner.subject(planner.fitted(resolved))
        model = subject.task.build().train()
        classes = {}
        layers = set()  # those that drop values, unless a pass can tell which draw
        norms = set()
        for name, module in model.named_modules():
            classes[name] = type(module).__name__
            if isinstance(module, _DropoutNd) and module.training and module.p > 0:
                layers.add(name)
            is_batch_norm = isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm)
            if is_batch_norm and module.training:
                norms.add(name)
        del model, module
        for is_fake in (True, False):  # a pass that depends on values needs them
            with suppress(*UNTRACED_ERRORS):
                layers = _in_a_pass(replace(subject, is_fake=is_fake), step)
                break
    by_class = defaultdict[str, list[str]](list)
    for name in sorted(layers | norms):
        by_class[classes.get(name, "task")].append(name)
    return dict(by_class)


def _in_a_pass(subject: Subject, step: int) -> set[str]:
    task = subject.task
    plan = subject.train_plan
    storages = Storages(subject.is_fake)
    if isinstance(task, TracksProgress):
        task.set_progress(plan.epoch(step), plan.epoch(plan.total_steps))
    model = task.build().train()  # with values: a model may compute its probabilities
    with cleared_caches():
        if storages.mode:
            _without_values(model, storages.mode)
        batch = copied(subject.micro_batch.batch, storages)
        draws = _Draws()
        before = _state(model)
        generators = _generators()
        with storages.computing(), draws.named(model), draws:
            task.loss(model, batch)
        layers = draws.drawing
        for name, version in _state(model).items():
            if before.get(name) != version:
                layers.add(name.rpartition(".")[0])
        for name, module in model.named_modules():
            if isinstance(module, SyncBatchNorm):
                layers.discard(name)
    if _generators() != generators:
        layers.add(LOSS)
    return layers


def _without_values(model: Module, mode: FakeTensorMode) -> None:
    for module in model.modules():
        tables: Any = (module._parameters, module._buffers)
        for tensors in tables:
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = mode.from_tensor(tensor)


class _Draws(TorchDispatchMode):
    """Notes the innermost module in which an operator draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.drawing = set[str]()
        self._inside = [LOSS]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            values = {each.name: each.default_value for each in func._schema.arguments}
            values.update(zip(values, args, strict=False), **(kwargs or {}))
            shares = [values[name] for name in _SHARES if name in values]
            if not shares or isinstance(shares[0], Tensor) or shares[0] != 0:
                self.drawing.add(self._inside[-1])
        return func(*args, **(kwargs or {}))

    @contextmanager
    def named(self, model: Module) -> Iterator[None]:
        """Inside, the modules of `model` say when they run."""
        with ExitStack() as hooks:
            for name, module in model.named_modules():
                enter = module.register_forward_pre_hook(
                    lambda *_, name=name: self._inside.append(name)
                )
                hooks.callback(enter.remove)
                leave = module.register_forward_hook(lambda *_: self._leave(), always_call=True)
                hooks.callback(leave.remove)
            yield

    def _leave(self) -> None:  # a hook that gives a value would replace the module's output
        self._inside.pop()


def _state(model: Module) -> dict[str, tuple[int, int]]:
    """Each tensor that a checkpoint has, and how often it was changed."""
    versions = {
        name: (id(value), value._version)
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    return versions


def _generators() -> tuple[object, ...]:
    """The states of Python's and NumPy's generators, which the loss of a task may use."""
    state = np.random.get_state(legacy=False)
    assert isinstance(state, dict)
    return random.getstate(), state["state"]["key"].tobytes(), state["state"]["pos"]
