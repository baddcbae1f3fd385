"""Where samples fill no global batch, the line to paste names one that fills and drops few."""

import shlex

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config import validate
from launcher.config.batching import check_fills, proposed_batch
from tests.launcher.given import resolved
from training.train_plan import TrainPlan


def test_the_proposed_batch_is_the_largest_that_drops_few():
    for samples, most, world_size, size in (
        (577, 128, 1, 115),  # a prime: 1 would drop none
        (577, 128, 2, 114),
        (577, 64, 1, 64),
        (20, 8, 4, 4),
        (7, 16, 1, 7),
        (7, 16, 2, 6),
        (3, 16, 4, None),
        (0, 16, 1, None),
        (1009, 1008, 1, 1008),
    ):
        assert proposed_batch(samples, most, world_size) == size, (samples, most, world_size)


def after(fix, *given):
    """The settings with a pasted line, which replaces what was typed."""
    pasted = [item for item in shlex.split(fix) if item != "--set"]
    keys = {item.partition("=")[0] for item in pasted}
    return [item for item in given if item.partition("=")[0] not in keys] + pasted


GIVEN = {
    "nothing": (),
    "the global batch": ("train.global_batch=128",),
    "the micro-batch": ("train.micro_batch=128", "train.global_batch=128"),
    "micro-batch and accumulation": ("train.micro_batch=32", "train.accumulation=4"),
    "all": ("train.micro_batch=16", "train.accumulation=8", "train.global_batch=128"),
    "the accumulation": ("train.accumulation=8", "train.global_batch=128"),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_the_line_to_paste_gives_a_batch_that_fills(given):
    run = resolved(*(given or ["train.global_batch=128"]))
    for samples in (1, 97):
        with pytest.raises(SettingsError) as error:
            check_fills(run, samples)
        [found] = error.value.diagnostics
        assert found.message == f"train.global_batch 128 exceeds the {samples} training samples"
        again = resolved(*after(found.fix, *given))
        check_fills(again, samples)
        assert again.batching.global_batch == samples
    plan = TrainPlan(30, 4, 128, 128, 1, 1, "tokens", dropped_samples=65)
    [warning] = validate._left_out(run, plan)
    assert warning.message.endswith("of 128: each epoch drops that many; 115 drops 2")
    assert resolved(*after(warning.fix, *given)).batching.global_batch == 115
