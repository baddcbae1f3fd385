"""Before an update: its learning rate, the random numbers of each rank, the progress of the task."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from gearshift.training.optim.updater import Updater
from gearshift.training.train_plan import TrainPlan
from tests.training.tiny import TinyTask, TwoTermsTask, make_settings, one_rank, run_tiny

PLAN = TrainPlan(12, 4, 8, 8, 1, 1, "")
CPU = torch.device("cpu")


def prepared(step, rank=0, plan=PLAN, task=None, groups=(), **settings):
    """The updater, just before the update after `step` updates."""
    updater = Updater(make_settings(**settings), plan)
    engine = SimpleNamespace(groups=groups, world=SimpleNamespace(rank=rank, device=CPU))
    updater.prepare(task or TinyTask(), engine, step)
    return updater


def test_each_step_and_rank_has_random_numbers_of_its_own():
    drawn = {}
    for step in range(3):
        for rank in range(3):
            prepared(step, rank)
            drawn[step, rank] = torch.rand(1).item()
    assert len(set(drawn.values())) == 9
    prepared(1, 2)
    assert torch.rand(1).item() == drawn[1, 2]
    prepared(1, 2, train={"seed": 8})
    assert torch.rand(1).item() != drawn[1, 2]


def test_the_learning_rate_is_that_of_the_schedule_after_so_many_updates():
    group = {}
    settings = {"optim": {"lr": 0.5}, "schedule": {"name": "linear", "final": 0.0}}
    found = [prepared(step, groups=[group], **settings).lr for step in (0, 3, 11)]
    assert found == pytest.approx([0.5, 0.5 * 9 / 12, 0.5 / 12])
    assert group["lr"] == found[-1]


@pytest.mark.parametrize(("experience", "epoch"), [(0, 1.5), (2, 3.0)])
def test_a_task_learns_its_epoch_and_an_experience_is_at_the_end(experience, epoch):
    task = TwoTermsTask()
    prepared(6, task=task, plan=replace(PLAN, experience=experience))
    assert task.paces == [(epoch, 3.0)]


def test_a_reset_of_the_schedule_begins_it_again_and_keeps_the_count_of_skips():
    changes = {
        "train": {"epochs": 4, "on_nonfinite": "skip 9"},
        "schedule": {"name": "plateau", "patience": 1},
        "eval": {"every": 1},
        "optim": {"name": "sgd", "lr": 3.0, "clip_norm": None},
        "save": {"every": 1},
        "log": {"every": 1},
    }
    whole = run_tiny(one_rank(), TinyTask(), **changes)
    assert whole.recorder.lines[6].lr < 3.0
    rates = {}
    for reset in ("schedule", "data"):
        before = whole.shelf.before(6, reset=frozenset({reset}))
        rest = run_tiny(one_rank(), TinyTask(), before=before, **changes)
        rates[reset] = rest.recorder.lines[0].lr
    assert rates == {"schedule": 3.0, "data": whole.recorder.lines[6].lr}
