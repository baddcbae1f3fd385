"""A mode's larger batch grows only as far as the data keeps enough steps."""

from pathlib import Path

import pytest

from gearshift.launcher.config import fitted_batch, resumed_settings
from gearshift.launcher.config.provenance import CliArgs, Origin
from gearshift.launcher.config.resolve import resolve
from tests.launcher.given import LAPTOP, ONE_GPU, SERVER, resolved
from tests.launcher.runs import begun

FAST = resolved(model="abr:lite", mode="fast", machine=ONE_GPU)
"""128 samples instead of 32, with twice the learning rate."""


def changes(before, after):
    """The settings that differ, with their new values."""
    values = after.values.items()
    return {key: new.value for key, new in values if new.value != before.values[key].value}


@pytest.mark.parametrize(
    ("steps_of_mode", "batch", "lr"),
    [(60, 128, 2e-4), (59, 96, 1.73205e-4), (30, 64, 1.41421e-4), (20, 32, 1e-4), (1, 32, 1e-4)],
)
def test_the_batch_is_the_largest_that_keeps_the_steps_and_the_learning_rate_follows_its_root(
    steps_of_mode, batch, lr
):
    run = fitted_batch.fitted(FAST, steps_of_mode * 128)
    train = run.settings.train
    assert FAST.settings.train.least_steps == 60
    assert (train.global_batch, run.settings.optim.lr) == (batch, pytest.approx(lr))
    assert train.micro_batch * train.accumulation == batch and train.micro_batch <= 64
    assert (train.epochs, train.max_steps) == (15, None)
    keys = {"train.global_batch", "train.micro_batch", "train.accumulation", "train.least_steps"}
    assert {*changes(FAST, run)} <= {*keys, "optim.lr"}
    assert run.settings.train.least_steps is None
    assert run.batching.global_batch == batch
    assert (len(run.notes) - len(FAST.notes)) == (batch != 128)


def test_the_values_name_the_samples_and_keep_what_they_override():
    run = fitted_batch.fitted(FAST, 6_000)
    assert "96 instead of 128: 6,000 samples" in run.notes[-1]
    lr = run.values["optim.lr"]
    assert (
        lr.origin == Origin("mode", "fitted to 6,000 training samples")
        and lr.replaced[0][0] == 2e-4
    )


def test_a_run_that_the_mode_limits_to_few_steps_keeps_its_samples():
    fast, tiny = (resolved(model="language:tiny", mode=mode) for mode in ("fast", None))
    run = fitted_batch.fitted(fast, 20_000)
    assert run.batching.global_batch == tiny.batching.global_batch < fast.batching.global_batch
    samples = fast.batching.global_batch * fast.settings.train.max_steps
    assert run.settings.train.max_steps * run.batching.global_batch == samples
    assert f": {samples:,} samples are" in run.notes[-1]


@pytest.mark.parametrize(
    ("sets", "kept"),
    [
        (["train.global_batch=128"], {"train.global_batch", "optim.lr"}),
        (["optim.lr=3e-4"], {"optim.lr"}),
        (["train.max_steps=5"], {"train.max_steps"}),
        (["train.least_steps=null"], {"train.global_batch", "optim.lr"}),
    ],
)
def test_a_batch_a_learning_rate_and_a_length_of_the_user_stay(sets, kept):
    before = resolved(*sets, model="abr:lite", mode="fast", machine=ONE_GPU)
    run = fitted_batch.fitted(before, 500)
    assert kept & set(changes(before, run)) == set()
    is_smaller = "train.global_batch" in changes(before, run)
    assert is_smaller == (sets[0] in ("optim.lr=3e-4", "train.max_steps=5"))


def test_the_batch_divides_among_processes_and_a_mode_without_larger_steps_stays():
    many = resolved(model="abr:lite", mode="ultra-fast", machine=SERVER, world_size=64)
    run = fitted_batch.fitted(many, 60 * 200)
    assert (run.batching.global_batch, run.batching.micro_batch) == (192, 3)
    default = resolved(model="abr:lite")
    assert fitted_batch.fitted(default, 10) is default
    same = resolved(model="eeg_text:full", mode="fast")
    assert changes(same, fitted_batch.fitted(same, 10)) == {"train.least_steps": None}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resumed_run_keeps_its_batch_and_one_that_ended_before_its_data_fits_it(world_size):
    fast = resolved(model="abr:lite", mode="fast", machine=LAPTOP)
    fit = fitted_batch.fitted(fast, 6_000)
    begun(Path("x"), fit)
    begun(Path("y"), fast)

    def resume(folder):
        args = CliArgs(resume=folder)
        return resolve(args, LAPTOP, world_size, resumed_settings.read(Path(folder)))

    again = resume("x")
    assert again.batching.global_batch == 96 and again.settings.optim.lr == fit.settings.optim.lr
    assert fitted_batch.fitted(again, 500) is again
    assert fitted_batch.fitted(resume("y"), 6_000).batching == again.batching
    # Killed between the two files that are replaced: settings.yaml is new, origins.json old.
    Path("x/origins.json").write_bytes(Path("y/origins.json").read_bytes())
    assert resume("x").batching == again.batching
    assert resume("x").settings.optim.lr == fit.settings.optim.lr
