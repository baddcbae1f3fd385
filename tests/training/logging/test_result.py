"""result.json is the machine-readable result of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.training.facts import about, outcome, train_plan
from training.logging.result import ResultWriter
from training.storage import Storage, StorageError


def test_the_result_has_its_keys(tmp_path: Path):
    result = ResultWriter(about(tmp_path), Storage(tmp_path))
    result.start(train_plan())
    result.end(outcome())

    assert os.listdir(tmp_path) == ["result.json"]
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "reason": "all steps taken",
        "stage": None,
        "architecture": None,
        "samples": None,
        "status": "completed",
        "steps": 100,
        "epochs": 2.0,
        "wall_s": 12.5,
        "model": "language:tiny",
        "mode": "lite",
        "engine": "ddp",
        "world_size": 2,
        "parameters": 1_234_567,
        "best": {"metric": "loss", "value": 2.25, "step": 50},
        "peak_memory_bytes": {"device": None, "host": 300 * 2**20},
        "predicted_memory_bytes": None,
        "samples_per_s": 640.0,
        "timing": None,
        "requeues": 0,
        "lost_steps": None,
        "effective_training_share": None,
        "data": {},
        "machine": {},
    }


def test_a_deleted_folder_is_an_error_but_hides_no_earlier_one(tmp_path: Path):
    missing = tmp_path / "gone"

    with pytest.raises(StorageError, match=r"cannot write .*gone/result\.json: No such file"):
        ResultWriter(about(missing), Storage(missing)).end(outcome())
    ResultWriter(about(missing), Storage(missing)).end(outcome(status="failed"))
