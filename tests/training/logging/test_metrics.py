"""metrics.jsonl and result.json have the documented keys."""

import json
import os

import pytest

from gearshift.training.logging.metrics import MetricsWriter, ResultWriter
from gearshift.training.logging.resumed_lines import truncate
from gearshift.training.storage import Storage, StorageError
from tests.training.facts import about, evaluation, logged, outcome, train_plan

ALWAYS = {
    *("kind", "step", "epoch", "samples", "tokens", "loss", "lr", "grad_norm", "skipped"),
    *("step_time_s", "data_time_s", "samples_per_s", "tokens_per_s"),
    *("device_memory_bytes", "host_memory_bytes"),
}


def begun(folder):
    metrics = MetricsWriter(Storage(folder))
    metrics.start(train_plan())
    return metrics


def written(folder, *lines):
    metrics = begun(folder)
    for line in lines:
        metrics.logged(line)
    metrics.end(outcome())
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_train_line_has_its_keys_and_full_precision_and_no_key_for_the_unknown(tmp_path):
    times = {"forward_time_s": 0.03, "backward_time_s": 0.05, "optimizer_time_s": 0.01}
    known = {"mfu": 0.4, "loss_scale": 65536.0, "parts": {"ce": 2.0}, **times}
    usual = logged(10, loss=1 / 3, lr=0.1 + 0.2)
    bad = logged(1, loss=float("nan"), grad_norm=float("inf"))
    line, more, nonfinite = written(tmp_path, usual, logged(10, **known), bad)
    assert set(line) == ALWAYS
    place = (line["kind"], line["step"], line["samples"], line["tokens"])
    assert place == ("train", 10, 640, 40960)
    assert (line["loss"], line["lr"]) == (1 / 3, 0.1 + 0.2)
    assert line["device_memory_bytes"] is None
    assert {key: more[key] for key in set(more) - ALWAYS} == known
    assert (nonfinite["loss"], nonfinite["grad_norm"]) == ("NaN", "Infinity")


def test_an_eval_line_has_its_keys(tmp_path):
    metrics = begun(tmp_path)
    metrics.evaluated(evaluation(50))
    metrics.end(outcome())
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    counts = {"samples": 64, "split_samples": 640}
    assert line == {"kind": "eval", "step": 50, "split": "val", **counts, "metrics": {"loss": 2.25}}


def _steps(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["kind"], line["step"]) for line in map(json.loads, lines)]


def _history(folder):
    metrics = begun(folder)
    for number in (1, 2, 3, 4):
        metrics.logged(logged(number))
        if number % 2 == 0:
            metrics.evaluated(evaluation(number))
    return metrics


def test_lines_of_repeated_steps_and_incomplete_ones_are_removed(tmp_path):
    metrics = _history(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    truncate(Storage(tmp_path), 4, evaluated_at=4)
    assert len(_steps(tmp_path)) == 6
    truncate(Storage(tmp_path), 3, evaluated_at=2)
    assert _steps(tmp_path) == [("train", 1), ("train", 2), ("eval", 2), ("train", 3)]
    truncate(Storage(tmp_path), 2, evaluated_at=2)
    assert _steps(tmp_path) == [("train", 1), ("train", 2), ("eval", 2)]
    truncate(Storage(tmp_path), 2, evaluated_at=None)  # the evaluation came after the checkpoint
    assert _steps(tmp_path) == [("train", 1), ("train", 2)]
    truncate(Storage(tmp_path), 1, evaluated_at=None)
    metrics.logged(logged(2))  # by a process that has the file open
    assert _steps(tmp_path) == [("train", 1), ("train", 2)]
    truncate(Storage(tmp_path), 0, evaluated_at=None)
    assert _steps(tmp_path) == []


def test_the_result_has_its_keys(tmp_path):
    result = ResultWriter(
        about(tmp_path, trainable_parameters=4_000), Storage(tmp_path), world_size=2
    )
    result.end(outcome())

    assert os.listdir(tmp_path) == ["result.json"]
    found = json.loads((tmp_path / "result.json").read_text())
    unknown = {"stage", "time_split", "predicted_memory_bytes", "test", "timing", "lost_steps"}
    assert {key for key, value in found.items() if value is None} == unknown
    assert {key: value for key, value in found.items() if value is not None} == {
        **{"reason": "all steps taken", "status": "completed", "steps": 100, "epochs": 2.0},
        **{"model": "language:tiny", "mode": "lite", "engine": "ddp", "world_size": 2},
        "best": {"metric": "loss", "value": 2.25, "step": 50},
        "baselines": [],
        "peak_memory_bytes": {"device": None, "host": 300 * 2**20},
        **{"wall_s": 12.5, "samples_per_s": 640.0, "parameters": 1_234_567, "requeues": 0},
        **{"trainable_parameters": 4_000, "architecture": "0a", "samples": 640},
        **{"environment": {}, "data": {}},
    }


def test_a_deleted_folder_is_an_error(tmp_path):
    missing = tmp_path / "gone"
    with pytest.raises(StorageError, match=r"gone/result\.json"):
        ResultWriter(about(missing), Storage(missing)).end(outcome())
