"""The chart names of a tracker, and the layouts that use them."""

from gearshift.training.trackers.follow import chart_values


def test_evaluations_of_other_splits_are_separate_series():
    line = {"kind": "eval", "step": 7, "split": "val", "metrics": {"val_loss": 2}}
    assert chart_values(line) == {"eval/val_loss": 2.0}
    assert chart_values(line | {"split": "earlier"}) == {"eval_earlier/val_loss": 2.0}


def test_unknown_values_are_left_out_and_nonfinite_values_are_kept():
    line = {"kind": "train", "step": 3, "loss": "NaN", "mfu": None, "ram_percent": 41.5}
    found = chart_values(line | {"lr.encoder": 1e-4})
    assert set(found) == {"train/loss", "machine/ram_percent", "optim/lr.encoder"}
    assert found["train/loss"] != found["train/loss"]
