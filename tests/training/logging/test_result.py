"""result.json is the machine-readable result of a run."""

import json
import os

import pytest

from tests.training.facts import about, outcome, train_plan
from training.logging.result import ResultWriter
from training.storage import Storage, StorageError


def test_the_result_has_its_keys(tmp_path):
    result = ResultWriter(about(tmp_path, trainable_parameters=4_000), Storage(tmp_path))
    result.start(train_plan())
    result.end(outcome())

    assert os.listdir(tmp_path) == ["result.json"]
    found = json.loads((tmp_path / "result.json").read_text())
    unknown = {"stage", "architecture", "samples", "time_split", "predicted_memory_bytes", "test"}
    unknown |= {"timing", "lost_steps"}
    assert {key for key, value in found.items() if value is None} == unknown
    assert {key: value for key, value in found.items() if value is not None} == {
        **{"reason": "all steps taken", "status": "completed", "steps": 100, "epochs": 2.0},
        **{"model": "language:tiny", "mode": "lite", "engine": "ddp", "world_size": 2},
        "best": {"metric": "loss", "value": 2.25, "step": 50},
        "peak_memory_bytes": {"device": None, "host": 300 * 2**20},
        **{"wall_s": 12.5, "samples_per_s": 640.0, "parameters": 1_234_567, "requeues": 0},
        "trainable_parameters": 4_000,
        **{"environment": {}, "data": {}, "machine": {}},
    }


def test_a_deleted_folder_is_an_error_but_hides_no_earlier_one(tmp_path):
    missing = tmp_path / "gone"
    with pytest.raises(StorageError, match=r"cannot write .*gone/result\.json: No such file"):
        ResultWriter(about(missing), Storage(missing)).end(outcome())
    ResultWriter(about(missing), Storage(missing)).end(outcome(status="failed"))
