"""metrics.jsonl holds the keys that programs rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.training.facts import evaluation, logged, outcome
from training.callbacks.base import StepMetrics
from training.logging.metrics import MetricsWriter, cut

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


def written(folder: Path, *lines: StepMetrics) -> list[dict[str, Any]]:
    metrics = MetricsWriter(folder)
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
    metrics = MetricsWriter(tmp_path)
    metrics.evaluated(evaluation(50))
    metrics.end(outcome())

    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"kind": "eval", "step": 50, "split": "val", "metrics": {"loss": 2.25}}


def _steps(folder: Path) -> list[tuple[str, int]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["kind"], line["step"]) for line in map(json.loads, lines)]


def _history(folder: Path) -> MetricsWriter:
    metrics = MetricsWriter(folder)
    for number in (1, 2, 3, 4):
        metrics.logged(logged(number))
        if number % 2 == 0:
            metrics.evaluated(evaluation(number))
    return metrics


def test_lines_that_will_be_written_again_are_cut(tmp_path: Path):
    _history(tmp_path)
    cut(tmp_path, 3, evaluated_at=2)
    assert _steps(tmp_path) == [("train", 1), ("train", 2), ("eval", 2), ("train", 3)]
    cut(tmp_path, 2, evaluated_at=2)
    assert _steps(tmp_path) == [("train", 1), ("train", 2), ("eval", 2)]
    cut(tmp_path, 0, evaluated_at=None)
    assert _steps(tmp_path) == []


def test_an_evaluation_that_the_checkpoint_does_not_know_is_cut(tmp_path: Path):
    _history(tmp_path)
    cut(tmp_path, 2, evaluated_at=None)
    assert _steps(tmp_path) == [("train", 1), ("train", 2)]


def test_an_unfinished_line_is_cut(tmp_path: Path):
    _history(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    cut(tmp_path, 4, evaluated_at=4)
    assert len(_steps(tmp_path)) == 6


def test_who_has_the_file_open_goes_on_behind_the_cut(tmp_path: Path):
    metrics = _history(tmp_path)
    cut(tmp_path, 1, evaluated_at=None)
    metrics.logged(logged(2))
    assert _steps(tmp_path) == [("train", 1), ("train", 2)]


def test_there_may_be_nothing_to_cut(tmp_path: Path):
    cut(tmp_path, 5, evaluated_at=None)
    assert not list(tmp_path.iterdir())
