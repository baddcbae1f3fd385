"""Budgets of time: what is refused, what else ends a run, and how much of a Slurm job is left."""

import json
import time

import pytest

from gearshift.launcher.run.time_limit import budget_s, lost_s
from gearshift.training.settings import SettingError
from tests.launcher.given import refused, resolved

KEY = "train.time"


@pytest.mark.parametrize("text", ["2 hors", "-1h", "0", "0h", "90M", "soon"])
def test_another_text_is_refused_with_the_forms_of_a_budget(text):
    (error,) = refused(**{"for": text})
    assert (error.key, error.where) == (KEY, f"--for {text}") and "90m" in error.allowed


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("90m", 5400), ("1.5h", 5400)])
def test_a_budget_is_in_seconds_minutes_hours_or_days(text, seconds):
    assert resolved(**{"for": text}).settings.train.time == text
    assert budget_s(text) == seconds


def test_a_budget_overrides_the_length_of_the_mode_but_not_that_of_the_user():
    train = resolved(**{"for": "2h"}).settings.train
    assert (train.epochs, train.max_steps) == (None, None)
    both = resolved(epochs="3", **{"for": "2h"}).settings.train
    assert (both.epochs, both.max_steps) == (3, None)
    continual = resolved("continual.enabled=true", "data.path=.", **{"for": "2h"}).settings.train
    assert continual.epochs is not None  # of the first data
    errors = refused("continual.enabled=true", "data.path=.", **{"for": "slurm"})
    assert [error.key for error in errors] == [KEY]


def test_a_schedule_that_ends_within_a_cycle_is_refused():
    errors = refused("schedule.name=cosine-restarts", **{"for": "2h"})
    assert [error.key for error in errors] == ["schedule.name"]


def test_a_job_leaves_the_time_up_to_its_warning(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    with pytest.raises(SettingError) as error:
        budget_s("slurm")
    assert error.value.key == KEY
    end = round(time.time()) + 6000
    monkeypatch.setenv("SLURM_JOB_END_TIME", f"{end}")
    monkeypatch.delenv("GEARSHIFT_JOB", raising=False)
    assert budget_s("slurm") == pytest.approx(6000, abs=60)
    # Job scripts of Gearshift warn five minutes before the end, and up to a minute earlier.
    monkeypatch.setenv("GEARSHIFT_JOB", "1")
    assert budget_s("slurm", 100.0) == pytest.approx(5740, abs=60)


def test_the_seconds_of_logged_steps_after_a_checkpoint_are_lost(tmp_path):
    assert lost_s(tmp_path, 3) == 0.0
    lines = [
        {"kind": "train", "step": 2, "step_time_s": 5.0},
        {"kind": "train", "step": 4, "step_time_s": 2.0},
        {"kind": "eval", "step": 4, "split": "val", "metrics": {}},
        {"kind": "train", "step": 8, "step_time_s": 0.5},
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "tra')
    # One step of the line at step 4 is after step 3, then four of half a second.
    assert lost_s(tmp_path, 3) == 2.0 + 4 * 0.5


@pytest.mark.parametrize(("job_variable", "spare_s"), [(None, 30), ("1", 360)])
@pytest.mark.parametrize("used_s", [0.0, 100.0])
def test_what_a_job_leaves_is_exact_and_never_negative(monkeypatch, job_variable, spare_s, used_s):
    """A margin after the run, or the time from the warning of the job script on."""
    monkeypatch.setattr(time, "time", lambda: 5000.5)
    monkeypatch.delenv("GEARSHIFT_JOB", raising=False)
    if job_variable:
        monkeypatch.setenv("GEARSHIFT_JOB", job_variable)
    for end, left_s in ((6000, 999.5 - spare_s), (5001 + spare_s, 0.5), (5000, 0.0), (1, 0.0)):
        monkeypatch.setenv("SLURM_JOB_END_TIME", f"{end}")
        assert budget_s("slurm", used_s) == used_s + left_s
        assert budget_s("2h", used_s) == 7200.0
    for text in ("", "-1", "soon"):
        monkeypatch.setenv("SLURM_JOB_END_TIME", text)
        with pytest.raises(SettingError):
            budget_s("slurm", used_s)


@pytest.mark.parametrize("step", range(12))
def test_lost_steps_have_the_time_of_the_line_that_follows_them(tmp_path, step):
    times = {1: 8.0, 4: 1.0, 5: 0.5, 10: 0.25}
    lines = [{"kind": "train", "step": at, "step_time_s": s} for at, s in times.items()]
    lines.insert(2, {"kind": "eval", "step": 9, "split": "val", "metrics": {}})
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    lost = range(step + 1, 11)
    assert lost_s(tmp_path, step) == sum(times[min(t for t in times if t >= n)] for n in lost)
