import pytest

from tests.training.tiny import make_settings
from training.train_plan import solve


def train_plan(length=100, global_batch=8, micro_batch=2, world_size=2, **changes):
    return solve(
        make_settings(**changes),
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
