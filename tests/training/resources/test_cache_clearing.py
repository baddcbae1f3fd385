"""The device's cache is given back every so many micro-batches, and never where nobody asks."""

import pytest
import torch

from tests.training.tiny import Listener, one_rank, run_tiny
from training.callbacks.base import Action
from training.resources.memory import CacheClearing

CPU = torch.device("cpu")


class Counting(Listener):
    """Takes the place of the hook in a run, and hands everything on to it."""

    def __init__(self, every):
        super().__init__()
        self.clearing = CacheClearing(every, CPU)

    def start(self, train_plan):
        super().start(train_plan)
        self.clearing.start(train_plan)

    def step(self, step):
        super().step(step)
        asked = self.clearing.step(step)
        assert asked == Action.NOTHING
        return asked


@pytest.mark.parametrize(
    ("every", "times"),
    # 6 steps of 4 micro-batches; where it falls inside a step, after that step.
    [(None, 0), (1, 6), (4, 6), (5, 4), (8, 3), (9, 2), (10, 2), (24, 1), (25, 0)],
)
def test_it_clears_after_so_many_micro_batches(every, times):
    callback = Counting(every)
    run_tiny(one_rank(), callback=callback, train={"epochs": 2})
    assert len(callback.steps) == 6
    assert callback.clearing.times == times
