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
    """Knows the step; ends the process at a moment, as `kill -9` does, or requests its end."""

    def __init__(self, first=0, kill=None, **requests):
        super().__init__(**requests)
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


def trained(shelf=None, step=None, kill=None, requests=None, **changes):
    steps = Steps(step or 0, kill, requests=requests)
    sections = {"train": {"epochs": 9, "max_steps": 20}, "eval": {"every": 2}, "save": {"every": 3}}
    sections["stop"] = {"patience": PATIENCE, "min_delta": MIN_DELTA}
    for name, values in changes.items():
        sections[name] = {**sections[name], **values}
    before = None if step is None else shelf.before(step)
    return run_tiny(one_rank(), Task(steps), steps, shelf=shelf, before=before, **sections)


def ends_as_the_whole_run(run, shelf):
    facts = shelf.saved[STOPPED_AT]["facts"]
    assert (run.outcome.status, run.outcome.steps) == ("completed", STOPPED_AT)
    assert run.outcome.reason == "stop.patience: error did not improve in 5 evaluations"
    assert run.outcome.best["step"] == 14
    assert facts["evaluator"]["waited"] == PATIENCE


# Evaluations are at even steps, saves at every third: 6 and 12 have both, 13 is the last.
@pytest.mark.parametrize("kill", [*("step 1", "step 13", "evaluated 4", "evaluated 12", "saved 12")])
def test_killed_and_resumed_from_the_newest_checkpoint(kill):
    shelf = Shelf()
    with pytest.raises(Killed):
        trained(shelf, kill=kill)
    shelf.is_settled = False
    ends_as_the_whole_run(trained(shelf, step=max(shelf.saved, default=None)), shelf)


@pytest.mark.parametrize(("section", "key", "step"), [("stop", "after", 4), ("train", "max_steps", 9)])
def test_ended_early_and_resumed_to_the_end(section, key, step):
    """The evaluation at such an end is one more, which patience does not count."""
    first = trained(**{section: {key: step}})
    assert first.outcome.steps == step and first.recorder.evaluations[-1].step == step
    run = trained(first.shelf, step=step)
    ends_as_the_whole_run(run, first.shelf)
