"""A run folder becomes a row, and rows a table for the docs."""

from __future__ import annotations

import json

import pytest

from benchmarks import families
from benchmarks.figures import load_rows, save_rows
from benchmarks.outcomes import Row, read, table
from models.catalog import FAMILIES

RESULT = {
    "parameters": 17218,
    "data": {"source": "/a/b/clip.raw", "format": "EVT2", "samples": {"train": 1000, "val": 2}},
    "best": {"metric": "val_iou", "value": 0.5, "step": 1},
}


@pytest.fixture
def run(tmp_path):
    """A run folder with two evaluations and the result of a noise control."""
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    lines = [
        {"kind": "eval", "metrics": {"val_loss": 2.0, "val_iou": 0.5}},
        {"kind": "train"},
        {"kind": "eval", "metrics": {"val_loss": 1.0, "val_iou": 0.25}},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    events = [{"kind": "saved"}, {"kind": "control", "facts": {"text": "val_iou at chance"}}]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    return tmp_path


def test_a_row_has_the_metrics_of_the_last_evaluation_with_the_goal_first(run):
    row = read("event_seg", "noise", "a command", run, 0, 1.0)
    assert list(row.metrics.items()) == [("val_iou", 0.25), ("val_loss", 1.0)]
    assert row.data == "clip.raw, EVT2; 1,000 / 2 samples"
    assert row.control == ["val_iou at chance"]


def test_the_table_shows_the_requested_metrics_or_the_goal(run):
    row = read("event_seg", "noise", "a command", run, 0, 1.0)
    assert table([row], {}).splitlines()[2] == (
        "| event_seg | `a command` | 17,218 | clip.raw, EVT2; 1,000 / 2 samples | val_iou 0.25 "
        "| val_iou at chance |"
    )
    assert "| val_loss 1 |" in table([row], {"event_seg": ["no such", "val_loss"]})


def test_rows_survive_saving_and_loading(run, tmp_path):
    row = read("event_seg", "real", "a command", run, 1, 2.5)
    path = tmp_path / "families.json"
    save_rows(path, "a command", {"cores": "2"}, [row])
    assert load_rows(path, Row) == ("a command", {"cores": "2"}, [row])
    assert isinstance(load_rows(path, Row)[2][0], Row)


def test_every_family_has_a_default_run_and_a_noise_control():
    assert set(families.RUNS) == set(families.SAMPLES) == set(FAMILIES)
    kinds = [kind for _, kind, _ in families.runs(None)]
    assert kinds.count("real") == kinds.count("noise") >= len(FAMILIES)
