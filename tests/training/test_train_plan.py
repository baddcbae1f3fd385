import pytest

from gearshift.training.train_plan import StartSteps, TrainPlan, solve
from tests.training.tiny import make_settings


def train_plan(
    length=100, global_batch=8, micro_batch=2, world_size=2, starts=None, experience=0, **changes
):
    return solve(
        make_settings(**changes),
        starts=starts,
        experience=experience,
        samples=length,
        global_batch=global_batch,
        micro_batch=micro_batch,
        world_size=world_size,
        units="tokens",
    )


def test_micro_batch_accumulation_and_ranks_make_up_the_global_batch():
    found = train_plan()
    assert found.micro_batch * found.accumulation * found.world_size == found.global_batch == 8
    assert found.steps_per_epoch == 12


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({"epochs": 3}, 36),
        ({"epochs": 0.5}, 6),
        ({"epochs": 0.001}, 1),
        ({"epochs": 3, "max_steps": 20}, 20),
        ({"epochs": 1, "max_steps": 500}, 12),
    ],
)
def test_a_run_is_as_long_as_the_shorter_of_epochs_and_steps(train, steps):
    assert train_plan(train=train).total_steps == steps


@pytest.mark.parametrize(
    ("every", "steps"), [(5, 5), ("1 epoch", 12), ("0.5 epochs", 6), ("25%", 9), (None, None)]
)
def test_intervals_are_in_steps(every, steps):
    found = train_plan(train={"epochs": 3}, eval={"every": every}, save={"every": every})
    assert found.eval_every == found.save_every == steps


@pytest.mark.parametrize(
    ("schedule", "save", "step"),
    [
        ({"name": "wsd", "decay": "25%"}, {}, 27),
        ({"name": "wsd", "decay": 6}, {}, 30),
        ({"name": "wsd", "decay": "100%"}, {}, None),
        ({"name": "wsd"}, {"last": False}, None),
        ({"name": "cosine"}, {}, None),
    ],
)
def test_the_checkpoint_before_the_decay_of_wsd_is_saved(schedule, save, step):
    found = train_plan(train={"epochs": 3}, schedule=schedule, save=save)
    assert [s for s in range(1, 37) if found.saves_at(s)] == ([] if step is None else [step])


def test_epochs_evaluations_and_samples_count_from_the_start_of_the_data():
    starts = StartSteps(data=5, samples_before=37)
    found = train_plan(train={"epochs": 3}, eval={"every": 4}, starts=starts)
    assert found.total_steps == 5 + 36
    assert [found.epoch(step) for step in (5, 11, 41)] == [0.0, 0.5, 3.0]
    assert found.samples(7) == 37 + 2 * 8
    assert [step for step in range(6, 20) if found.evaluates_at(step)] == [9, 13, 17]


def test_the_steps_of_an_experience_count_from_its_start():
    changes = {"train": {"epochs": None, "max_steps": 10}, "starts": StartSteps(data=30)}
    assert train_plan(**changes, experience=1).total_steps == 40
    assert train_plan(**changes, experience=0).total_steps == 10


@pytest.mark.parametrize(
    ("every", "each_epoch"), [(4, False), (None, True), (4, True), (3, True), (None, False)]
)
def test_evaluations_are_counted_as_they_are_due(every, each_epoch):
    found = TrainPlan(
        50, 6, 8, 8, 1, 1, "", data_start=5, eval_every=every, eval_each_epoch=each_epoch
    )
    for after, until in ((5, 50), (7, 29), (17, 18)):
        due = [step for step in range(after + 1, until + 1) if found.evaluates_at(step)]
        assert found.evaluations(after, until) == len(due)


def test_a_run_may_stop_early_with_the_schedule_of_the_whole():
    found = train_plan(train={"epochs": 3}, stop={"after": 20})
    assert (found.total_steps, found.end_step, found.last_step) == (36, 20, 20)
    assert train_plan(train={"epochs": 3}, stop={"after": 99}).end_step == 36
