"""Runs of two processes, one of which differs from the other in one thing."""

import time
from dataclasses import dataclass, field
from itertools import count

import pytest
import torch

from gearshift.training.agreement import Interrupted, Interruption, attempt
from gearshift.training.callbacks.base import Action, WorkerDied
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, TwoTermsTask, run_tiny


@dataclass
class Odd:
    """A thing in which a rank differs."""

    requests: dict = field(default_factory=dict)
    """Actions after a step."""
    at_evaluation: Action = Action.NOTHING
    """Actions when an evaluation has ended."""
    looks: int | None = None
    """A signal arrives when the callbacks are asked so often since the newest step."""
    writes_slowly: bool = False
    """Its part of a checkpoint is never on the disk before the run waits for it."""


class OddCallback(RecordingCallback):
    """The callback of a rank that differs."""

    def __init__(self, odd):
        super().__init__(odd.requests)
        self._odd = odd
        self._looks = 0

    def step(self, step):
        self._looks = 0
        return super().step(step)

    def requested(self):
        self._looks += 1
        is_late = bool(self.steps) and self._odd.looks and self._looks >= self._odd.looks
        return Action.SIGNAL | Action.SAVE if is_late else Action.NOTHING

    def evaluated(self, evaluation):
        super().evaluated(evaluation)
        return self._odd.at_evaluation


class SlowShelf(Shelf):
    """Writes only while the run waits."""

    is_written = True

    def save(self, *arguments):
        super().save(*arguments)
        self.is_settled = self.is_written = False

    def wait(self):
        self.is_settled = not self.is_written
        self.is_written = True
        return super().wait()


def odd_run(world, odd, odd_rank, changes, task=None, shelves=None):
    """The calls, the end and the numbers of a run; `odd_rank` differs, or the only one."""
    is_odd = world.size == 1 or world.rank == odd_rank
    odd = odd if is_odd else Odd()
    before = None
    if shelves:
        shelf = shelves[world.rank]
        before = shelf.before(max(shelf.saved))
    run = run_tiny(
        world,
        task or TwoTermsTask(),
        OddCallback(odd),
        shelf=SlowShelf() if odd.writes_slowly else None,
        before=before,
        **changes,
    )
    recorder = run.recorder
    outcome = run.outcome
    return {
        "calls": recorder.calls,
        "end": (outcome.status, outcome.reason, outcome.exit_code, outcome.steps),
        "saved": sorted(run.shelf.saved),
        "owes": {step: kept["facts"]["owes_evaluation"] for step, kept in run.shelf.saved.items()},
        "skipped": [step.step for step in recorder.steps if step.skipped],
        "losses": [line.loss for line in recorder.lines],
        "norms": [line.grad_norm for line in recorder.lines],
        "labelled": [line.labelled for line in recorder.lines],
        "evaluated": [(each.step, *each.metrics.values()) for each in recorder.evaluations],
        "weights": torch.cat([w.flatten() for w in run.weights.values()]).tolist(),
        "shelf": Shelf(run.shelf.saved),
    }


def by_clock(world, seconds_a_look, changes, task=None):
    """The fits of a run by a clock that goes on at each look, at the pace of the rank."""
    looks = count()
    seconds = seconds_a_look[world.rank]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(looks) * seconds)
        run = run_tiny(world, task, **changes)
    return [list(fit) for fit in run.shelf.saved[run.outcome.steps]["facts"]["fits"]]


def interrupted(world, odd_rank, looks, gathers_weights):
    """The batches that a rank began before a signal at the odd one, its calls, and the actions."""
    is_odd = world.rank == odd_rank
    asked = count(1)

    def requested():
        return Action.SIGNAL | Action.SAVE if next(asked) >= looks and is_odd else Action.NOTHING

    model = torch.nn.Identity()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    interruption = Interruption(world, requested, gathers_weights=gathers_weights)
    batches = []
    try:
        with interruption.watching(model):
            for batch in interruption.between(range(3)):
                batches.append(batch)
                for _ in range(2):
                    model(torch.zeros(1))
    except Interrupted as error:
        return batches, len(calls), error.actions
    return batches, len(calls), Action.NOTHING


def failing(world, odd_rank, at_call):
    """The failures that a rank has at the end, if the odd one fails at one of three calls."""
    model = torch.nn.Identity()
    interruption = Interruption(world, gathers_weights=True)
    failures = []
    calls = 0
    with interruption.watching(model, failures):
        for call in range(3):
            if world.rank == odd_rank and call == at_call:
                failures.append("no text")
                break
            model(torch.zeros(1))
            calls += 1
    return failures, calls


def without_worker(world, odd_rank, at_batch):
    """The batches of a rank, and the error, if a worker of the odd one dies."""

    def arriving():
        for batch in range(3):
            if world.rank == odd_rank and batch == at_batch:
                raise WorkerDied("killed")
            yield batch

    batches = []
    try:
        for batch in Interruption(world).between(arriving()):
            batches.append(batch)
    except WorkerDied as error:
        return batches, str(error)
    return batches, None


def attempted(world, errors):
    """What a rank gets of an action that raises its entry of `errors`, if it has one."""
    error = errors[world.rank]

    def action():
        if error is not None:
            raise error
        return world.rank

    try:
        return attempt(world, action, OSError)
    except ValueError as raised:
        return str(raised)
