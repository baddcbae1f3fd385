"""metrics.jsonl holds the keys that programs rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.training.facts import evaluation, logged, outcome
from training.hooks import Logged
from training.records.metrics import Metrics

ALWAYS = {
    "kind",
    "step",
    "epoch",
    "samples",
    "tokens",
    "loss",
    "lr",
    "grad_norm",
    "step_time_s",
    "data_time_s",
    "samples_per_s",
    "tokens_per_s",
    "device_memory_bytes",
    "host_memory_bytes",
    "skipped",
}


def written(folder: Path, *lines: Logged) -> list[dict[str, Any]]:
    metrics = Metrics(folder)
    for line in lines:
        metrics.logged(line)
    metrics.end(outcome())
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_train_line_has_its_keys_and_full_precision(tmp_path: Path):
    (line,) = written(tmp_path, logged(10, loss=1 / 3, lr=0.1 + 0.2))

    assert set(line) == ALWAYS
    assert (line["kind"], line["step"], line["samples"], line["tokens"]) == (
        "train",
        10,
        640,
        40960,
    )
    assert (line["loss"], line["lr"]) == (1 / 3, 0.1 + 0.2)
    assert line["device_memory_bytes"] is None


def test_what_is_not_known_has_no_key(tmp_path: Path):
    known = logged(10, mfu=0.4, loss_scale=65536.0, parts={"ce": 2.0})
    without, line = written(tmp_path, logged(5), known)

    assert set(line) - set(without) == {"mfu", "loss_scale", "parts"}
    assert (line["mfu"], line["loss_scale"], line["parts"]) == (0.4, 65536.0, {"ce": 2.0})


def test_a_loss_that_is_no_number_is_written_as_a_word(tmp_path: Path):
    (line,) = written(tmp_path, logged(1, loss=float("nan"), grad_norm=float("inf")))

    assert (line["loss"], line["grad_norm"]) == ("NaN", "Infinity")


def test_an_eval_line_has_its_keys(tmp_path: Path):
    metrics = Metrics(tmp_path)
    metrics.evaluated(evaluation(50))
    metrics.end(outcome())

    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"kind": "eval", "step": 50, "split": "val", "metrics": {"loss": 2.25}}
