"""What to do about a run: its faults, the limits it exceeded, and how to finish it."""

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.report import findings
from launcher.report.run_record import RunEvent, RunRecord
from training.checkpoint.manifest import Manifest

FOLDER = Path("/runs/mine")
READING = {"ram": 35.2, "swap": 0.0, "cpu": 12.0, "disk": 40.0, "temperature": None}
SAVED = {"step-00000004": Manifest(4, 16, "local", 1, True, {}, ())}


def record(*events, checkpoints=SAVED, **result):
    found = [RunEvent("12:00", kind, 4, facts) for kind, facts in events]
    return RunRecord(FOLDER, {}, {"steps": 6, **result}, {}, {}, found, checkpoints)


def test_a_healthy_run_has_its_gain_and_a_next_command():
    assert findings.rows(record(("saved", {"step": 4}), status="completed")) == []
    best = {"metric": "val_iou", "value": 0.5, "step": 4}
    run = record(status="completed", best=best)
    points = {"val_iou": [(2, 0.25), (4, 0.5)]}
    seen, gain, following = findings.healthy(replace(run, evaluations=points))
    assert seen == "completed, and no fault was found"
    assert gain == "val_iou 0.2500 at step 2, 0.5000 at step 4"
    assert following == "python -m launcher --config /runs/mine/settings.yaml"
    for first in ((4, 0.25), (2, None)):
        assert findings.healthy(replace(run, evaluations={"val_iou": [first]}))[1] == ""


def test_faults_that_the_run_found_come_first_and_once():
    advice = ("advice", {"fault": "x", "seen": "a", "cause": "b", "fix": "c"})
    rows = findings.rows(record(advice, advice, status="failed", reason="loss nan"))
    assert rows == [("a", "b", "c")]


def test_an_exceeded_limit_has_its_cause_and_a_command_with_a_higher_one():
    facts = {"over": ["ram"], "critical": [], **READING}
    run = record(("throttled", facts), ("throttled", facts | {"ram": 36.0}), status="completed")
    [(seen, cause, fix)] = findings.rows(run)
    assert seen == "step 4: ram 35%, over its limit: releasing unused memory"
    assert "more memory than the limit" in cause
    again = "python -m launcher --config /runs/mine/settings.yaml --set limits.ram=41"
    assert fix == f"end other programs, or  {again}"


@pytest.mark.parametrize("facts", [{}, {"over": "ram"}, {"over": ["new"]}, {"over": ["ram"]}])
def test_events_of_another_version_are_left_out(facts):
    assert findings.rows(record(("throttled", facts), status="completed")) == []
