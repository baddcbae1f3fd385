"""The estimate of a checkpoint's size is that of the checkpoint."""

import pytest
import torch

from gearshift.training.checkpoint import retention
from tests.launcher.given import resolved

OPTIMIZERS = {"adamw": 2.0, "sgd": 1.0, "adafactor": (3 + 5) / 15, "muon": 1.0}
"""Slot elements per element of a matrix of 3 × 5."""


@pytest.mark.parametrize(
    ("name", "ema", "best"),
    [("adamw", "null", 0), ("sgd", "0.9", 1), ("adafactor", "null", 1), ("muon", "0.9", 0)],
)
def test_weights_slots_and_average_are_counted(name, ema, best):
    settings = resolved(f"optim.name={name}", f"train.ema={ema}", f"save.keep_best={best}").settings
    model = torch.nn.Linear(5, 3, bias=False)
    elements = 15 * (1 + best + (ema != "null") + OPTIMIZERS[name])
    assert retention.checkpoint_bytes(model, settings, only_trained=False) == round(4 * elements)


def test_a_full_disk_is_described_and_an_empty_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(
        retention.shutil, "disk_usage", lambda folder: type("", (), {"free": 2**30})
    )
    assert retention.lacking(tmp_path, 2**29) is None
    assert retention.lacking(tmp_path, 2**30) == (
        f"it needs 1.0 GiB, and {tmp_path} has 1.0 GiB free"
    )
