"""A run with a budget of time, as a person starts it."""

import json

import pytest

from tests.runs.conftest import result

pytestmark = pytest.mark.slow
SETS = ["--set", "eval.samples=8", "--set", "engine.threads=1", "--set", "log.every=1"]


def test_a_budget_that_is_too_short_leaves_nothing_and_its_fix_works(program):
    args = ["--model", "language:tiny", "--batch-size", "8", "--out", "mine", *SETS]
    refused = program(*args, "--for", "1s", "--json")
    (error,) = json.loads(refused.stdout)["diagnostics"]
    assert (refused.returncode, error["key"]) == (2, "train.time")
    assert not (program.folder / "mine").exists()
    assert program(*args, "--for", "20s").returncode == 0
    run = program.folder / "mine"
    found = result(run)
    saved = json.loads((run / "last" / "state.json").read_text())["facts"]["fits"]
    assert saved[-1][1] == found["steps"] > 2
    replay = json.loads(program("verify", "mine", "--engine", "ddp", "--json").stdout)
    assert replay["agrees"]
    longer = program("resume", "mine", "--for", "30s", "--json")
    assert longer.returncode == 2  # a completed run needs --reset schedule
