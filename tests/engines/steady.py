"""An engine that averages gradients one parameter at a time: all that a new engine needs."""

from contextlib import contextmanager

from gearshift.engines.optimizer_step import average
from gearshift.engines.replicated import Replicated


def steady(world, options):
    return Replicated(world, options, OneByOne)


class OneByOne:
    def __init__(self, model, world, options):
        self.module, self._world = model, world

    @contextmanager
    def accumulate(self, last):
        yield
        for parameter in self.module.parameters() if last else ():
            average([parameter], self._world)

    def load_steps(self, steps):
        pass
