"""Runs in Trackio's local database: one run for all generations, each step once."""

import json
import sqlite3
from contextlib import closing

import pytest

from models.base import Picture, Predictions
from tests.training.trackers.conftest import PNG
from tests.training.trackers.tracked_run import Generation

pytest.importorskip("trackio")


@pytest.fixture
def database(tmp_path, monkeypatch, patient):
    folder = tmp_path / "trackio"
    monkeypatch.setenv("TRACKIO_DIR", str(folder))
    return folder / "try.db"


def generation(folder, **changes):
    return Generation(folder, ("trackio:try",), tracking={"wait_s": 120}, **changes)


def rows(database):
    """Run, step and metrics of each row, in the order they were written."""
    with closing(sqlite3.connect(database)) as open_database:
        found = open_database.execute("select run_name, step, metrics from metrics order by id")
        return [(name, step, json.loads(text)) for name, step, text in found]


def losses(database):
    return [(step, row["train/loss"]) for _, step, row in rows(database) if "train/loss" in row]


def test_a_run_has_rows_samples_alerts_and_an_end(database, tmp_path):
    run = generation(tmp_path / "mine").begin().until_open()
    run.log(1, parts={"ce": 2.0}).log(2).evaluate(2)
    shown = Predictions(("given", "gives"), [["a", 1.0]], [Picture("page", "one page", PNG)])
    for callback in run.callbacks:
        callback.predicted(shown, 2)
        callback.event("throttled", {"text": "ram 97"})
    run.end()
    assert run.printed == [("tracked", "trackio show --project try")]
    assert losses(database) == [(1, 1.0), (2, 0.5)]
    found = {name: value for _, _, row in rows(database) for name, value in row.items()}
    assert found["train/ce"] == 2.0 and found["eval/loss"] == 2.25 and found["best/value"] == 2.25
    assert "gives" in json.dumps(found["samples/predictions"])
    assert "png" in json.dumps(found["samples/page"])
    with closing(sqlite3.connect(database)) as open_database:
        assert open_database.execute("select title from alerts").fetchall() == [("throttled",)]


@pytest.mark.slow
def test_generations_make_one_run_without_repeated_steps_or_gaps(database, tmp_path):
    folder = tmp_path / "run"
    generation(folder).begin().until_open().log(1, 2, 3).stop()
    generation(folder).begin(first_step=2).until_open().log(3, 4).evaluate(4).die()
    generation(folder).begin(first_step=3).log(4, 5).end()
    assert [step for step, _ in losses(database)] == [1, 2, 3, 4, 5]
    assert len({name for name, _, _ in rows(database)}) == 1
