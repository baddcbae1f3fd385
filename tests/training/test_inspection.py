"""Facts about models and batches, and previews."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gearshift.models.base import Predictions
from gearshift.training.inspection import architecture
from tests.training.tiny import WIDTH, TinyNet, TinyTask, one_rank, run_tiny


class FrozenTask(TinyTask):
    def build(self):
        model = TinyNet(unused=True)
        model.linear.bias.requires_grad_(False)
        return model


def test_parameters_that_do_not_train_are_reported():
    run = run_tiny(one_rank(), FrozenTask())
    text = {"text": "no gradient in the first step of 1 parameter: unused", "names": ["unused"]}
    assert ("warning", text) in run.recorder.events
    assert ("frozen", {"count": 1, "names": ["linear.bias"]}) in run.recorder.events


def test_an_architecture_is_names_and_shapes_and_not_weights():
    def digest(*layers):
        model = nn.Sequential()
        for name, layer in layers:
            model.add_module(name, layer)
        return architecture(model)

    first = digest(("a", nn.Linear(3, 2)))
    assert first.parameters == first.trained == 8
    assert digest(("a", nn.Linear(3, 2).requires_grad_(False))).trained == 0
    assert first == digest(("a", nn.Linear(3, 2)))
    assert first.digest != digest(("b", nn.Linear(3, 2))).digest
    assert first.digest != digest(("a", nn.Linear(1, 4))).digest


CALLS = 3


@dataclass
class PreviewTask(TinyTask):
    """Calls the model a few times; raises on one rank, after some calls."""

    fails_on: int | None = None
    fails_after: int = 0
    rank: int = 0
    made: int = 0

    def predictions(self, model):
        self.made += 1
        rows = []
        for call in range(CALLS):
            self._maybe_fail(call)
            found = model(torch.full((2, WIDTH), float(call), dtype=torch.float64))
            rows.append((found.sum().item(), str(model.training), str(found.requires_grad)))
        self._maybe_fail(CALLS)
        return Predictions(("sum", "training", "gradients"), rows)

    def _maybe_fail(self, call):
        if self.fails_on == self.rank and call == self.fails_after:
            raise OSError("the disk is gone")


def shown(run):
    return {step: found.rows for step, found in run.recorder.shown.items()}


def warnings(run):
    return [facts["text"] for kind, facts in run.recorder.events if kind == "warning"]


def with_tracker(world, task, **changes):
    return run_tiny(world, task, track=["tensorboard"], eval={"every": 2}, **changes)


def test_predictions_are_shown_after_each_evaluation_of_the_model_as_it_is_then():
    task = PreviewTask(dropout=0.5)
    run = with_tracker(one_rank(), task, train={"epochs": 2, "max_steps": 5})
    found = shown(run)
    assert list(found) == [2, 4, 5] and set(run.recorder.samples) == {"before", "after"}
    assert task.made == 5  # those of the last step for trackers and for the end
    assert {row[1:] for rows in found.values() for row in rows} == {("False", "False")}
    assert len({rows[1][0] for rows in found.values()}) == 3


def failing(world, rank, after):
    """Events on both ranks of a run with failing predictions on one of them."""
    torch.set_num_threads(1)
    task = PreviewTask(fails_on=rank, fails_after=after, rank=world.rank)
    run = with_tracker(world, task, engine="fsdp")
    return run.outcome.status, warnings(run), len(shown(run))


@pytest.mark.parametrize(("rank", "after"), [(0, 0), (1, 1), (0, CALLS)])
def test_an_error_on_one_rank_is_one_warning_and_the_run_continues(two_ranks, rank, after):
    found = two_ranks.run(failing, rank, after)
    assert [(status, count) for status, _, count in found] == [("completed", 0)] * 2
    own, other = found[rank][1], found[1 - rank][1]
    assert own == ["predictions are disabled: OSError: the disk is gone"]
    assert other == ["predictions are disabled: another rank could not make them"]
