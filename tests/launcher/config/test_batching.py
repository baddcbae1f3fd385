"""The same arguments give the same global batch for any number of processes."""

import pytest

from tests.launcher.given import refused, resolved


def numbers(*sets, world_size=1, **options):
    solved = resolved(*sets, model="language", world_size=world_size, **options).batching
    assert solved.global_batch == solved.micro_batch * solved.accumulation * solved.world_size
    return solved.global_batch, solved.micro_batch, solved.accumulation


def test_more_processes_reduce_accumulation_first_then_the_micro_batch():
    solved = [numbers(world_size=size) for size in (1, 2, 4, 8, 64)]
    assert solved == [(64, 16, 4), (64, 16, 2), (64, 16, 1), (64, 8, 1), (64, 1, 1)]


THREE = ("train.global_batch=48", "train.micro_batch=12", "train.accumulation=4")


@pytest.mark.parametrize(
    ("sets", "world_size", "expected"),
    [
        (("train.global_batch=128",), 1, (128, 16, 8)),
        (("train.global_batch=40",), 1, (40, 10, 4)),
        (("train.global_batch=40",), 4, (40, 10, 1)),
        (THREE[:2], 1, (48, 12, 4)),
        (THREE, 2, (48, 12, 2)),
        (("train.global_batch=48", "train.accumulation=6"), 1, (48, 8, 6)),
        (("train.micro_batch=8",), 1, (32, 8, 4)),
        (("train.micro_batch=6", "train.accumulation=2"), 3, (12, 4, 1)),
        # An awkward share takes the largest micro-batch that divides.
        (("train.micro_batch=4", "train.accumulation=3"), 2, (12, 3, 2)),
    ],
)
def test_batch_settings_of_the_user_are_kept_as_far_as_they_divide(sets, world_size, expected):
    assert numbers(*sets, world_size=world_size) == expected


def test_an_indivisible_batch_is_an_error_with_a_line_that_resolves():
    for sets, world_size in (
        (["train.global_batch=40", "train.accumulation=3"], 1),
        (["train.global_batch=24", "train.micro_batch=5", "train.accumulation=5"], 1),
        (["train.global_batch=10"], 4),
        (["train.global_batch=2"], 4),
        (["train.micro_batch=5", "train.accumulation=1"], 2),
    ):
        [found] = refused(*sets, model="language", world_size=world_size)
        given = dict(text.split("=") for text in sets)
        fixed = given | dict(text.split("=") for text in found.fix.replace("--set ", "").split())
        run = resolved(*map("=".join, fixed.items()), model="language", world_size=world_size)
        assert abs(run.batching.global_batch - int(given.get("train.global_batch", 5))) <= 2


@pytest.mark.parametrize(
    ("shares", "batch", "accumulation", "nearest"),
    [
        ("[3,1,1]", 8, 1, [3, 1]),
        ("[3]", 8, 1, [3, 1]),
        ("[3,2]", 8, 1, [5, 3]),
        ("[0,1]", 8, 1, [1, 7]),
        ("[-1,4]", 8, 1, [1, 7]),
        ("[7,1]", 16, 8, [1, 1]),
        ("[7,1]", 32, 4, None),
        ("[3,3]", 8, 1, None),
    ],
)
def test_shares_that_do_not_split_the_batch_are_an_error_with_the_nearest_that_do(
    shares, batch, accumulation, nearest
):
    sets = [f"train.global_batch={batch}", f"train.accumulation={accumulation * 2}"]
    if nearest is None:
        assert resolved(*sets, f"engine.shares={shares}", world_size=2).batching.world_size == 2
        return
    [found] = refused(*sets, f"engine.shares={shares}", world_size=2)
    assert (found.key, found.where) == ("engine.shares", f"--set engine.shares={shares}")
    assert found.fix == f"--set 'engine.shares={nearest}'"
    run = resolved(*sets, f"engine.shares={nearest}", world_size=2)
    assert run.settings.engine.shares == nearest


def test_solved_batch_settings_have_the_values_they_override():
    run = resolved(model="language", world_size=8)
    assert run.settings.train.micro_batch == 8
    value = run.values["train.micro_batch"]
    assert value.origin.where == "64 = 8 × 1 × 8 processes"
    assert value.replaced[0][0] == 16
    assert not any(note.startswith("train.micro_batch") for note in run.notes)
    run = resolved("train.micro_batch=16", model="language", world_size=8)
    assert "train.micro_batch: 8 instead of 16: 64 = 8 × 1 × 8 processes" in run.notes
