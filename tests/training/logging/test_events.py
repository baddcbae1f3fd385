"""events.jsonl: one file for events of all ranks, one per rank for its own."""

import json
import os
from datetime import datetime, timezone

from gearshift.training.logging.metrics import EventsWriter
from gearshift.training.storage import Storage
from tests.training.facts import evaluation, outcome, step, train_plan

NOON = datetime(2025, 1, 2, 12, 0, 0, 123456, tzinfo=timezone.utc)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_events_of_a_run_have_time_kind_step_and_facts(tmp_path):
    events = EventsWriter(Storage(tmp_path), now=lambda: NOON)
    events.start(train_plan())
    events.step(step(50))
    events.evaluated(evaluation(50))
    events.saved(tmp_path / "checkpoints" / "step-00000050", 50, 0.25)
    events.event("warning", {"text": "careful"})
    events.end(outcome())

    found = lines(tmp_path / "events.jsonl")
    kinds = ["started", "evaluated", "saved", "warning", "stopped"]
    assert [line["kind"] for line in found] == kinds
    assert [line["step"] for line in found] == [0, 50, 50, 50, 50]
    assert all(set(line) == {"time", "kind", "step", "facts"} for line in found)
    assert found[0]["time"] == "2025-01-02T12:00:00.123Z"
    assert found[0]["facts"]["global_batch"] == 64
    assert found[2]["facts"] == {"folder": "step-00000050", "step": 50, "seconds": 0.25}
    assert found[4]["facts"]["exit_code"] == 0


def test_another_rank_writes_only_its_own_events(tmp_path):
    events = EventsWriter(Storage(tmp_path), rank=3)
    events.start(train_plan())
    events.event("warning", {"text": "seen by all"})
    assert os.listdir(tmp_path) == []
    events.step(step(7))
    events.rank_event("throttled", {"ram": 97.0})
    events.end(outcome())
    assert os.listdir(tmp_path) == ["events-rank3.jsonl"]
    (line,) = lines(tmp_path / "events-rank3.jsonl")
    assert (line["kind"], line["step"], line["facts"]) == ("throttled", 7, {"ram": 97.0})
