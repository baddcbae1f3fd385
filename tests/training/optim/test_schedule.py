import json
from dataclasses import replace

import pytest
import torch
from torch.optim import lr_scheduler

from gearshift.training import settings
from gearshift.training.optim.schedule import LrSchedule
from gearshift.training.train_plan import TrainPlan

STEPS = 100


def train_plan(total=STEPS, steps_per_epoch=10):
    return TrainPlan(total, steps_per_epoch, 8, 8, 1, 1, "")


def factors(total=STEPS, **changes):
    schedule = LrSchedule(settings.Schedule(**changes), train_plan(total))
    return [schedule.factor(step) for step in range(total)]


def by_torch(build):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(STEPS - 1):  # OneCycleLR takes no more
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


# torch multiplies step by step and so gathers rounding.
def close(expected):
    return pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({"name": "constant"}, lambda o: lr_scheduler.LinearLR(o, 1.0, 1.0, STEPS)),
        ({"name": "linear", "final": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, STEPS)),
        ({"name": "cosine", "final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, 0.1)),
    ],
)
def test_a_schedule_is_that_of_torch(changes, by):
    assert factors(**changes) == close(by_torch(by))


def test_wsd_keeps_the_peak_until_its_decay():
    found = factors(name="wsd", warmup=4, decay="20%", final=0.1)
    assert found[:5] == close([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(found[4:81]) == {1.0}
    # Half of the decay: the square root of one half is gone.
    assert found[90] == close(1 - 0.9 * 0.5**0.5)
    assert found[80:] == sorted(found[80:], reverse=True)
    assert found[-1] > 0.1


def on_plateau(values, resumed_after=None, **changes):
    given = settings.Schedule(name="plateau", **changes)
    schedule, found = LrSchedule(given, train_plan()), []
    for number, value in enumerate(values):
        if number == resumed_after:
            facts = json.loads(json.dumps(schedule.facts()))
            schedule = LrSchedule(given, train_plan())
            schedule.resume(facts)
        schedule.add(value, -1)
        found.append(schedule.factor(number))
    return found


LOSSES = [3.0, 2.0, 2.5, 2.0, 2.1, 2.2, 1.0, float("nan"), 1.5, 1.2, 1.1, 1.0, 1.0]


def test_plateau_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {"factor": 0.5, "patience": 1, "threshold": 0.0, "min_lr": 0.2}
    scheduler, expected = lr_scheduler.ReduceLROnPlateau(optimizer, **options), []
    for value in LOSSES:
        scheduler.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    assert on_plateau(LOSSES, patience=2, drop=0.5, final=0.2) == close(expected)
    assert min(expected) == 0.2


@pytest.mark.parametrize("number", range(1, len(LOSSES)))
def test_a_resumed_plateau_drops_where_an_unbroken_one_does(number):
    assert on_plateau(LOSSES, number) == on_plateau(LOSSES)


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_one_cycle_is_torch_one_cycle(share):
    found = factors(name="one-cycle", warmup=f"{share:.0%}", final=1 / 25e4)
    one_cycle = lr_scheduler.OneCycleLR
    assert found == close(by_torch(lambda o: one_cycle(o, 1.0, STEPS, pct_start=share)))


@pytest.mark.parametrize(
    ("name", "warmup"), [("constant", 20), ("linear", "20%"), ("cosine-restarts", "2 epochs")]
)
def test_warm_up_rises_evenly_to_the_peak(name, warmup):
    found = factors(name=name, warmup=warmup, final=0.5)
    assert found[:20] == pytest.approx([(step + 1) / 21 for step in range(20)])
    assert found[20] == 1.0
    rest = LrSchedule(settings.Schedule(name=name, final=0.5), train_plan(STEPS - 20))
    assert found[20:] == [rest.factor(step) for step in range(STEPS - 20)]


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd", "one-cycle", "cosine-restarts"])
def test_a_schedule_that_was_reset_covers_the_steps_that_are_left(name):
    start = 30
    given = settings.Schedule(name=name, warmup=5, final=0.1)
    reset = LrSchedule(given, replace(train_plan(STEPS), schedule_start=start))
    fresh = LrSchedule(given, train_plan(STEPS - start))
    assert [reset.factor(start + step) for step in range(70)] == [
        fresh.factor(step) for step in range(70)
    ]
