"""An engine that averages gradients one parameter at a time: all that a new engine needs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch.nn import Module

from engines.base import Engine, Options, World
from engines.optimizer_step import average
from engines.replicated import Replicated


def steady(world: World, options: Options) -> Engine:
    return Replicated(world, options, OneByOne)


class OneByOne:
    def __init__(self, model: Module, world: World, options: Options):
        self.module, self._world = model, world

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        yield
        for parameter in self.module.parameters() if last else ():
            average([parameter], self._world)

    def load_steps(self, steps: Mapping[str, float]) -> None:
        pass
