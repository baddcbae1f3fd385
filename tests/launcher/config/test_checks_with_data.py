"""Checks that need the data: splits, dropped samples, unused settings."""

import copy
import json
import pickle
from types import SimpleNamespace

import pytest

from launcher.config import validate
from launcher.config.schema import setting_infos
from launcher.config.validate import TrackedSettings
from models.base import DataError
from tests.launcher.given import resolved
from training.train_plan import TrainPlan

EVERY = set(setting_infos("language"))


def task(train, val):
    return SimpleNamespace(data={"train": train, "val": val}.__getitem__)


def warned(capsys, steps_per_epoch, dropped_samples):
    run = resolved(batch_size="8")
    train_plan = TrainPlan(
        30, steps_per_epoch, 8, 8, 1, 1, "tokens", dropped_samples=dropped_samples
    )
    validate.check_before_training(run, train_plan, TrackedSettings(run.settings), prints=True)
    return [line for line in capsys.readouterr().err.splitlines() if "global batch of" in line]


def test_many_dropped_samples_of_the_last_partial_batch_are_reported(capsys):
    assert warned(capsys, steps_per_epoch=2, dropped_samples=4) == [
        "warning: 4 of 20 samples of an epoch do not fill a global batch of 8: each epoch drops that many; 5 drops 0"
    ]
    assert warned(capsys, steps_per_epoch=2, dropped_samples=0) == []
    assert warned(capsys, steps_per_epoch=10, dropped_samples=7) == []


def test_one_split_for_two_uses_or_a_group_in_two_splits_is_refused(tmp_path):
    same = [1, 2, 3]
    with pytest.raises(DataError, match="the task trains and validates on the same samples"):
        validate.check_splits(task(same, same), tmp_path)
    groups = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
    (tmp_path / "split.json").write_text(json.dumps(groups))
    validate.check_splits(task([1], [2]), tmp_path)
    groups["val"] = ["b", "d"]
    (tmp_path / "split.json").write_text(json.dumps(groups))
    with pytest.raises(DataError, match="1 groups are in two splits: b"):
        validate.check_splits(task([1], [2]), tmp_path)


def test_a_view_remembers_the_leaves_that_were_read_and_is_as_strict_as_the_settings():
    view = TrackedSettings(resolved().settings)
    critical = view.limits.critical
    assert validate.settings_read(view) == frozenset()
    assert critical.ram == 95
    assert view.train.epochs == 100
    assert validate.settings_read(view) == {"limits.critical.ram", "train.epochs"}
    assert validate.settings_read(view.train) == validate.settings_read(view)
    for twin in (pickle.loads(pickle.dumps(view.data)), copy.deepcopy(view.data)):
        assert twin.seq_len == view.data.seq_len
    with pytest.raises(AttributeError):
        _ = view.train.epoch
    message = r"settings cannot change after they are resolved: train\.epochs"
    with pytest.raises(AttributeError, match=message):
        view.train.epochs = 3


def test_an_unused_setting_is_reported_with_its_origin():
    run = resolved("train.ema=0.99", "unread_settings=error", lr="1e-3")
    # Of the settings that nothing reads, those of shipped layers are found by tests only.
    read = EVERY - {"train.ema", "schedule.warmup", "optim.eps"}
    [diagnostic] = validate.unused_diagnostics(run, read)
    assert diagnostic.message == "train.ema 0.99 is unused: nothing in this run reads it"
    assert (diagnostic.where, diagnostic.severity) == ("--set train.ema=0.99", "error")
    assert validate.unused_keys(run.values, read) == ["train.ema", "schedule.warmup"]
    assert validate.unused_diagnostics(run, EVERY) == []
    by_default = resolved("train.ema=0.99")
    [diagnostic] = validate.unused_diagnostics(by_default, EVERY - {"train.ema"})
    assert diagnostic.severity == "warning"


def test_a_setting_without_effect_or_used_by_the_launcher_may_stay_unused():
    mute = {"schedule.cycle", "schedule.t_mult"}
    run = resolved("schedule.name=linear", mode="fast")
    assert run.values["schedule.cycle"].origin.layer == "mode"
    assert validate.unused_keys(run.values, EVERY - mute) == []
    assert set(validate.unused_keys(resolved(mode="fast").values, EVERY - mute)) == mute
    run = resolved("train.global_batch=16", mode="lite", engine="ddp", nproc="2")
    assert not set(validate.unused_keys(run.values, ())) & validate.BY_THE_LAUNCHER
