"""Patience counts the same in a run that was cut and resumed as in one that was not."""

import pytest

from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, TinyMetric, TinyTask, one_rank, run_tiny
from training.callbacks.base import Action

ERRORS = {2: 5.0, 4: 4.0, 6: 4.5, 8: 3.9, 10: 3.95, 12: 4.1, 14: 3.85, 16: 3.84, 18: 3.83, 20: 3.82}
"""By step: improves by more than min_delta at 4, and no more from there; the best is the last."""
PATIENCE, MIN_DELTA = 5, 0.5
STOPPED_AT = 14


class Killed(Exception):
    """The end of a process that writes nothing any more."""


class Steps(RecordingCallback):
    """Knows the step; ends the process at a moment, as `kill -9` does."""

    def __init__(self, first, kill):
        super().__init__()
        self.now, self._kill = first, kill

    def step(self, step):
        self.now = step.step
        action = super().step(step)
        self._die("step")
        return action

    def evaluated(self, evaluation):
        super().evaluated(evaluation)
        self._die("evaluated")
        return Action.NOTHING

    def saved(self, folder, step, seconds):
        super().saved(folder, step, seconds)
        self._die("saved")

    def _die(self, moment):
        if f"{moment} {self.now}" == self._kill:
            raise Killed


class Task(TinyTask):
    """Its error is that of ERRORS; between its steps it is good, and patience does not count it."""

    def __init__(self, steps):
        super().__init__()
        self._steps = steps

    def metric(self):
        metric = TinyMetric()
        metric.result = lambda counts: {"error": ERRORS.get(self._steps.now, 3.99)}
        return metric


def trained(shelf=None, step=None, kill=None):
    steps = Steps(step or 0, kill)
    sections = {"train": {"epochs": 9, "max_steps": 20}, "eval": {"every": 2}, "save": {"every": 3}}
    sections["stop"] = {"patience": PATIENCE, "min_delta": MIN_DELTA}
    before = None if step is None else shelf.before(step)
    return run_tiny(one_rank(), Task(steps), steps, shelf=shelf, before=before, **sections)


# Evaluations are at even steps, saves at every third: 6 and 12 have both, 13 is the last.
@pytest.mark.parametrize("kill", [*("step 1", "step 13", "evaluated 4", "evaluated 12", "saved 12")])
def test_killed_and_resumed_from_the_newest_checkpoint(kill):
    shelf = Shelf()
    with pytest.raises(Killed):
        trained(shelf, kill=kill)
    shelf.is_settled = False
    run = trained(shelf, step=max(shelf.saved, default=None))
    assert (run.outcome.status, run.outcome.steps) == ("completed", STOPPED_AT)
    assert run.outcome.best["step"] == 14
    assert shelf.saved[STOPPED_AT]["facts"]["evaluator"]["waited"] == PATIENCE
