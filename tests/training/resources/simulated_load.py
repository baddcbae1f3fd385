"""Runs on a machine with simulated readings, for one process and for several."""

from gearshift.training.resources.limits import LimitEnforcer
from gearshift.training.settings import Limits
from tests.training.readings import CALM, SimulatedMonitor
from tests.training.tiny import RecordingCallback, TinyTask, run_tiny

# 24 samples in steps of 8, long enough for every throttling step.
LONG = {"train": {"epochs": 6}, "eval": {"every": None}, "log": {"every": 1}}


class SimulatedLoad(RecordingCallback):
    """A recording callback with a real LimitEnforcer; readings have the `percents`, in order.

    The first one is read at the start, the last one repeats. An interval passes after the steps in
    `at`.
    """

    def __init__(self, percents, at=(2,)):
        super().__init__()
        self._left, self._at = list(percents), at
        self._monitor = SimulatedMonitor(CALM)
        self._monitor.read = self._read
        self._enforcer = LimitEnforcer(Limits(), self._monitor, self.event)

    def start(self, train_plan):
        super().start(train_plan)
        self._enforcer.start(train_plan)

    def step(self, step):
        if step.step in self._at:
            self._monitor.new = self._read()
        return super().step(step) | self._enforcer.step(step)

    def throttled(self, left):
        super().throttled(left)
        self._enforcer.throttled(left)

    def end(self, outcome):
        super().end(outcome)
        self._enforcer.end(outcome)

    def _read(self):
        return {**CALM, "ram": self._left.pop(0) if len(self._left) > 1 else self._left[0]}


def loaded_run(world, percents, changes):
    """A run in which each rank reads its `percents`; ranks without them are calm."""
    callback = SimulatedLoad(percents.get(world.rank, [40.0]))
    return summary(run_tiny(world, callback=callback, **LONG | changes))


def throttled_run(world, task, requests, changes):
    """A run with throttling steps at given steps, whatever the machine reads."""
    return summary(run_tiny(world, TinyTask(**task), RecordingCallback(requests), **LONG | changes))


def summary(run):
    """The results of a run as plain numbers."""
    return {
        "losses": [line.loss for line in run.recorder.lines],
        "kinds": run.recorder.kinds(),
        "facts": [facts for _, facts in run.recorder.events],
        "steps": run.outcome.steps,
        "exit_code": run.outcome.exit_code,
        "saved": list(run.shelf.saved),
        "weights": {name: weight.tolist() for name, weight in run.weights.items()},
        "samples": [line.samples for line in run.recorder.lines],
    }
