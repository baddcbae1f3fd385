"""What only the data can tell: splits that share samples, and samples that fill no batch."""

import json
from types import SimpleNamespace

import pytest

from launcher.config import late_checks
from launcher.config.late_checks import TrackedSettings
from models.base import DataError
from tests.launcher.given import resolved
from training.train_plan import TrainPlan


def task(train, val):
    return SimpleNamespace(data={"train": train, "val": val}.__getitem__)


def warned(capsys, steps_per_epoch, dropped_samples):
    run = resolved(batch_size="8")
    train_plan = TrainPlan(
        30, steps_per_epoch, 8, 8, 1, 1, "tokens", dropped_samples=dropped_samples
    )
    late_checks.check_before_training(run, train_plan, TrackedSettings(run.settings), speaks=True)
    return [line for line in capsys.readouterr().err.splitlines() if "global batch of" in line]


def test_samples_that_fill_no_batch_are_told_where_they_are_many(capsys):
    assert warned(capsys, steps_per_epoch=2, dropped_samples=4) == [
        "warning: 4 of 20 samples of an epoch do not fill a global batch of 8: each epoch drops that many"
    ]
    assert warned(capsys, steps_per_epoch=2, dropped_samples=0) == []
    assert warned(capsys, steps_per_epoch=10, dropped_samples=7) == []


def test_the_fix_drops_no_samples():
    run = resolved()
    train_plan = TrainPlan(30, 2, 8, 8, 1, 1, "tokens", dropped_samples=4)
    [fault] = late_checks._left_out(run, train_plan)
    assert fault.fix == "--set train.global_batch=5"
    assert (2 * 8 + 4) % 5 == 0


def test_one_split_for_training_and_validation_is_refused(tmp_path):
    same = [1, 2, 3]
    with pytest.raises(DataError, match="the task trains and validates on the same samples"):
        late_checks.check_splits(task(same, same), tmp_path)
    late_checks.check_splits(task(same, [4]), tmp_path)


def test_groups_that_stand_in_two_splits_are_refused(tmp_path):
    groups = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
    (tmp_path / "split.json").write_text(json.dumps(groups))
    late_checks.check_splits(task([1], [2]), tmp_path)
    groups["val"] = ["b", "d"]
    (tmp_path / "split.json").write_text(json.dumps(groups))
    with pytest.raises(DataError, match="1 groups are in two splits: b"):
        late_checks.check_splits(task([1], [2]), tmp_path)
