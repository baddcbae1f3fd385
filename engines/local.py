"""Plain PyTorch in the process you started: the reference for all other engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn import Module

from gearshift.engines.base import Engine, Options, World
from gearshift.engines.optimizer_step import average
from gearshift.engines.replicated import Replicated


def local(world: World, options: Options) -> Engine:
    """The engine local; more processes average all gradients at once after backward."""
    return Replicated(world, options, FlatAveraging)


class FlatAveraging:
    """Averages all gradients at once after the last backward pass."""

    def __init__(self, model: Module, world: World, options: Options):
        self.module = model
        self._world = world

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        yield
        if last:
            average(self.module.parameters(), self._world)
