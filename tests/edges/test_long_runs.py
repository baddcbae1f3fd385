"""Runs of many lines are read as a stream, and no point of a curve is lost."""

import json
import tracemalloc

import pytest

from gearshift.launcher.report import run_record
from gearshift.launcher.report.watched_run import WatchedRun
from gearshift.training.callbacks.base import Outcome
from gearshift.training.logging.metrics import EventsWriter, MetricsWriter
from gearshift.training.storage import Storage
from tests.launcher.given import resolved
from tests.launcher.runs import begun, ended
from tests.training.facts import logged, train_plan

LINES, EVERY = 12_000, 7
"""Steps of a long run, and between two of its evaluations."""


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """The folder of a completed run with a line for each of many steps."""
    folder = tmp_path_factory.mktemp("runs") / "long"
    begun(folder, resolved())
    storage = Storage(folder)
    metrics = MetricsWriter(storage)
    for writer in (metrics, EventsWriter(storage)):
        writer.start(train_plan(total_steps=LINES))
    metrics.logged(logged(1))
    line = json.loads((folder / "metrics.jsonl").read_text())
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(1, LINES + 1):
            loss = 4.0 if step <= LINES // 2 else 2.0
            loss = 77.0 if step == 8_337 else "NaN" if step == 5_345 else loss
            facts = {"step": step, "loss": loss, "device_memory_bytes": None, "x": "-" * 300}
            file.write(json.dumps(line | facts) + "\n")
            if step % EVERY == 0:
                metrics = {"val_loss": 1.0}
                content = {"kind": "eval", "step": step, "split": "val", "metrics": metrics}
                file.write(json.dumps(content) + "\n")
    EventsWriter(storage).end(Outcome("completed", "all", 0, LINES, 2.0, 9.0, None, None))
    ended(folder, "completed", LINES)
    return folder


@pytest.mark.slow
def test_the_memory_of_a_reader_does_not_grow_with_the_file(long_run):
    tracemalloc.start()
    WatchedRun(long_run).snapshot()
    run_record.read(long_run, "run")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000  # all points of this run take 16 MB


def test_a_report_keeps_the_ends_the_spike_and_the_gap_of_many_lines(long_run):
    record = run_record.read(long_run, "run")
    loss = record.train["loss"]
    assert len(loss) <= run_record.MOST_POINTS
    assert (loss[0], loss[-1]) == ((1, 4.0), (LINES, 2.0))
    assert {(8_337, 77.0), (5_345, None)} <= set(loss)
    assert [x for x, _ in loss] == sorted({x for x, _ in loss})
    assert "device_memory_bytes" not in record.train and "x" not in record.train
    assert record.evaluations["val_loss"][-1][0] == LINES // EVERY * EVERY
    assert record.steps == LINES
