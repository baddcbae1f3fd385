"""A limit of steps ends a run where it says, in every family, mode and custom task."""

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config.validate import length_note
from models.catalog import FAMILIES
from tests.launcher.given import resolved
from training.train_plan import solve

MOST = 100_000
"""More steps than any default has."""


def plan(run, samples=4000):
    sizes = {name: getattr(run.batching, name) for name in ("global_batch", "micro_batch")}
    return solve(run.settings, samples=samples, world_size=1, units="samples", **sizes)


@pytest.mark.parametrize("family", FAMILIES)
def test_max_steps_wins_over_the_epochs_of_a_family_and_a_mode(family):
    for mode, most in (("default", 1), ("default", MOST), ("staged", 1), ("fast", MOST)):
        run = resolved(max_steps=str(most), model=f"{family}:tiny", mode=mode)
        assert plan(run).total_steps == most, mode
        assert length_note(run.values, plan(run)) is None, mode


def test_of_both_the_earlier_ends_the_run_and_the_start_says_which(tmp_path):
    (tmp_path / "mine.yaml").write_text("train: {epochs: 2}\n")
    epoch = plan(resolved(epochs="1")).steps_per_epoch
    late = resolved(max_steps=str(MOST), configs=[tmp_path / "mine.yaml"])
    assert plan(late).total_steps == 2 * epoch
    text = f"train.epochs=2 ends the run at step {2 * epoch}, before train.max_steps={MOST}"
    assert length_note(late.values, plan(late)) == text
    early = resolved(max_steps="3", epochs="2")
    assert plan(early).total_steps == 3
    text = "train.max_steps=3 ends the run at step 3, before train.epochs=2"
    assert length_note(early.values, plan(early)) == text


def test_a_run_without_any_end_is_an_error():
    with pytest.raises(SettingsError, match="null is null, and so is train"):
        resolved("train.epochs=null", "train.max_steps=null")
