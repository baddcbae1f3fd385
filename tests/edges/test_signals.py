"""A signal at any moment of a run saves it and ends it; what it cut off is not recorded."""

from dataclasses import dataclass

import pytest
import torch

from gearshift.models.base import Predictions
from gearshift.training.callbacks.base import Action
from tests.training.conftest import two_ranks  # noqa: F401
from tests.training.tiny import WIDTH, RecordingCallback, TinyNet, TinyTask, one_rank, run_tiny

DECODED = 2
"""Calls of the model for one batch, as a decoder has one for each token."""
CHANGES = {"train": {"epochs": 2, "max_steps": 4}, "eval": {"every": 2}, "save": {"every": 3}}
CHANGES |= {"stop": {"patience": 3}, "track": ["tensorboard"], "has_test": True}
SIGTERM = Action.SIGNAL | Action.SAVE


class DecodingMetric:
    """The error after a few calls of the model."""

    def __init__(self, name):
        self._name = name

    def update(self, model, batch):
        for _ in range(DECODED):
            found = model(batch["x"])
        return torch.stack([(found - batch["y"]).square().sum(), torch.tensor(float(len(found)))])

    def result(self, counts):
        return {self._name: (counts[0] / counts[1]).item()}


@dataclass
class DecodingTask(TinyTask):
    """Calls its model several times for a batch, a preview, predictions and a final metric."""

    calls: int = 0
    """Of the model, while it does not learn."""

    def build(self):
        model = TinyNet()
        model.linear.register_forward_hook(self._count)
        return model

    def _count(self, module, inputs, output):
        self.calls += not module.training

    def metric(self):
        return DecodingMetric("error")

    def final_metric(self):
        return DecodingMetric("beam_error")

    def preview(self, model):
        return f"{self._called(model):.3f}"

    def predictions(self, model):
        return Predictions(("sum",), [(self._called(model),)])

    def _called(self, model):
        x = torch.ones(1, WIDTH, dtype=torch.float64)
        return sum(model(x).sum().item() for _ in range(DECODED))


class SignalAt(RecordingCallback):
    """Requests the end from the moment of a call of the model on."""

    def __init__(self, task, call):
        super().__init__()
        self._task, self._call = task, call

    def step(self, step):
        super().step(step)
        return self.requested()

    def requested(self):
        is_sent = self._call is not None and self._task.calls >= self._call
        return SIGTERM if is_sent else Action.NOTHING


def run_until(call, world=None, **changes):
    task = DecodingTask()
    run = run_tiny(world or one_rank(), task, SignalAt(task, call), **(CHANGES | changes))
    return run, task.calls


def evaluations(*runs):
    return [(e.step, e.split, dict(e.metrics)) for run in runs for e in run.recorder.evaluations]


def resumed(run, **changes):
    step = max(run.shelf.saved)
    return run_until(None, before=run.shelf.before(step), shelf=run.shelf, **changes)[0]


@pytest.fixture(scope="module")
def whole():
    run, calls = run_until(None)
    # Two previews, predictions twice, an evaluation at steps 2 and 4, the final metric, the test.
    assert [step for step, *_ in evaluations(run)] == [2, 4, 4]
    return run, calls


def test_a_run_cut_in_any_call_of_the_model_and_resumed_is_the_one_that_was_not_cut(whole):
    run, calls = whole
    expected = evaluations(run)
    for call in range(calls):
        cut, calls_until = run_until(call)
        assert (cut.outcome.status, cut.outcome.exit_code) == ("stopped", 75), call
        assert calls_until == max(call, 0)  # not one call more
        if not cut.shelf.saved:  # nothing was trained yet
            assert cut.outcome.steps == 0
            continue
        assert max(cut.shelf.saved) == cut.outcome.steps
        rest = resumed(cut)
        assert rest.outcome.status == "completed"
        # The test split is evaluated at the end of every process: its line is replaced.
        before = [found for found in evaluations(cut) if found[1] != "test"]
        assert before + evaluations(rest) == expected, call
        assert rest.outcome.best == run.outcome.best
        assert all(torch.equal(rest.weights[name], run.weights[name]) for name in run.weights)


def two_rank_run(world, engine, call):
    """Rank 1 alone gets the signal, in the middle of a batch."""
    torch.set_num_threads(1)
    task = DecodingTask()
    callback = SignalAt(task, call if world.rank == 1 else None)
    run = run_tiny(world, task, callback, engine=engine, **CHANGES)
    facts = run.shelf.saved[2]["facts"]
    return run.outcome.exit_code, run.outcome.steps, evaluations(run), facts["owes_evaluation"]


@pytest.mark.parametrize(("engine", "call"), [("ddp", DECODED * 2 + 1), ("fsdp", DECODED * 4)])
def test_ranks_leave_an_evaluation_together(two_ranks, engine, call):  # noqa: F811
    first, second = two_ranks.run(two_rank_run, engine, call)
    assert first == second == (75, 2, [], True)
