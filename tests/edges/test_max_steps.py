"""A limit of steps ends a run where it says, in every family, mode and custom task."""

import sys
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.config.validate import length_note
from models.catalog import FAMILIES
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import resolved
from tests.runs.conftest import REQUESTS, result
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


def test_max_steps_of_a_file_wins_and_epochs_over_a_limit_that_is_shipped(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"train: {{max_steps: {MOST}}}\n")
    assert plan(resolved(configs=[tmp_path / "mine.yaml"])).total_steps == MOST
    run = resolved(epochs="50", model="abr:tiny")
    assert plan(run).total_steps == 50 * plan(run).steps_per_epoch


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


@pytest.mark.parametrize(
    ("defaults", "steps", "epochs"),
    [
        ({"train.max_steps": MOST}, MOST, 0),
        ({"train.epochs": 2}, 0, 2),
        ({"train.epochs": 2, "train.max_steps": MOST}, 0, 2),
        ({"train.epochs": 2, "train.max_steps": 3}, 3, 0),
    ],
)
def test_the_defaults_of_a_custom_task(tmp_path, monkeypatch, defaults, steps, epochs):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = write(tmp_path, HEAD + LINE + f"    defaults = {defaults}\n" + BODY)
    found = plan(resolved(model=f"{name}:Line"))
    assert found.total_steps == steps + epochs * found.steps_per_epoch
    assert plan(resolved(model=f"{name}:Line", max_steps="7")).total_steps == 7


def test_a_resumed_run_takes_the_newest_of_both(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(REQUESTS)
    options = "--data mine.jsonl --set train.preview=false --max-steps 2 --epochs 9 --out run"
    assert main(["--model", "language:tiny", *options.split()]) == 0
    assert result(Path("run"))["steps"] == 2
    text = "train.max_steps=2 ends the run at step 2, before train.epochs=9"
    assert text in capsys.readouterr().out
    assert main(["resume", "run", "--max-steps", "4", "--reset", "schedule"]) == 0
    assert result(Path("run"))["steps"] == 4
    again = resolved(model=None, configs=[Path("run/settings.yaml")])
    assert again.settings.train.max_steps == 4
