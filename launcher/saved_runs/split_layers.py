"""The layers whose numbers depend on how a batch is split over processes and micro-batches."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gearshift.launcher.config.machine import detect_machine
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.plan.plan import open_planner
from gearshift.launcher.plan.step_trace import UNTRACED_ERRORS, Subject
from gearshift.launcher.plan.target import Described
from gearshift.models.base import TracksProgress

LOSS = "loss"
"""Stands for a module where a task draws outside of its model."""


def split_layers(resolved: Resolved, step: int) -> dict[str, list[str]]:
    """The layers that draw random numbers or use the whole micro-batch: their names by class.

    In one forward pass of the training after `step` updates, computed on the CPU: modules that
    advance a random generator, or change a buffer. If no pass is possible there: dropout. And batch
    normalization. Reads the data, and builds the model. Raises SettingsError.
    """
    with open_planner(resolved, Described(detect_machine())) as planner:
        subject = planner.subject(planner.fitted(resolved))
        model = subject.task.build().train()
        try:
            layers = _in_a_pass(subject, model, step)
        except UNTRACED_ERRORS:
            layers = _names_of(model, _DropoutNd)
    layers |= _names_of(model, _BatchNorm)
    layers -= _names_of(model, SyncBatchNorm)  # it uses the global batch
    classes = {name: type(module).__name__ for name, module in model.named_modules()}
    by_class = defaultdict[str, list[str]](list)
    for name in sorted(layers):
        by_class[classes.get(name, "task")].append(name)
    return dict(by_class)


def _names_of(model: Module, kind: type[Module]) -> set[str]:
    """The modules of a class that are trained."""
    modules = model.named_modules()
    return {name for name, module in modules if isinstance(module, kind) and module.training}


def _in_a_pass(subject: Subject, model: Module, step: int) -> set[str]:
    task = subject.task
    plan = subject.train_plan
    if isinstance(task, TracksProgress):
        task.set_progress(plan.epoch(step), plan.epoch(plan.total_steps))
    names = {module: name for name, module in model.named_modules()}
    layers: set[str] = set()
    running = [LOSS]
    generators = _generators()

    def look() -> None:
        """Note the innermost module that runs if something was drawn since the last look."""
        nonlocal generators
        now = _generators()
        if now != generators:
            generators = now
            layers.add(running[-1])

    def enter(module: Module, *_: object) -> None:
        look()
        running.append(names.get(module, LOSS))

    def leave(*_: object) -> None:
        look()
        running.pop()

    before = _versions(model)
    with (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ):
        task.loss(model, subject.micro_batch.batch)
        look()
    for name, version in _versions(model).items():
        if before.get(name) != version:
            layers.add(name.rpartition(".")[0])
    return layers


def _versions(model: Module) -> dict[str, tuple[int, int]]:
    """Each tensor that a checkpoint has, and how often it was changed."""
    tensors = model.state_dict(keep_vars=True).items()
    return {
        name: (id(value), value._version) for name, value in tensors if isinstance(value, Tensor)
    }


def _generators() -> tuple[object, ...]:
    """The states of the generators of torch, NumPy and Python."""
    state: Any = np.random.get_state(legacy=False)
    numbers = state["state"]
    drawn = torch.get_rng_state().numpy().tobytes()
    return drawn, numbers["key"].tobytes(), numbers["pos"], random.getstate()
