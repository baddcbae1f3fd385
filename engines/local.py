"""Plain PyTorch in the process you started; the reference that other engines are held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch.nn import Module

from engines.base import Engine, Options, World
from engines.optimizer_step import average
from engines.replicated import Replicated


def local(world: World, options: Options) -> Engine:
    """The engine local; with more processes gradients are averaged in one piece after backward."""
    return Replicated(world, options, FlatAveraging)


class FlatAveraging:
    """Averages all gradients at once when the last backward pass is through."""

    def __init__(self, model: Module, world: World, options: Options):
        self.module = model
        self._world = world

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        yield
        if last:
            average(self.module.parameters(), self._world)

    def recall(self, steps: Mapping[str, float]) -> None:
        """Nothing to remember: what is used is asked at each step."""
