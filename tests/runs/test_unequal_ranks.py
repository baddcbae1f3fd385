"""A run whose ranks share by their speed: killed after a change, resumed, and replayed."""

import json

import psutil
import pytest

from benchmarks.unequal_ranks import TIMES
from tests.runs.conftest import ROOT
from tests.waiting import until

SETTINGS = ("engine.shares=auto", "engine.threads=1", "device=cpu", "log.every=2", "save.every=4")
SETTINGS += ("train.global_batch=16", "train.micro_batch=4", "eval.every=null", "eval.samples=16")
SETTINGS += ("save.keep_last=9", "report.enabled=false")


@pytest.mark.slow
def test_shares_that_were_measured_survive_a_kill_and_are_replayed(program, monkeypatch):
    monkeypatch.setenv(TIMES, "9")
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    run = program.folder / "run"
    options = ["--model", "benchmarks.unequal_ranks:Unequal", "--nproc", "2", "--out", str(run)]
    process = program.start(*options, "--max-steps", "16", *sets, cwd=ROOT)
    events = run / "events.jsonl"

    def changes():
        lines = events.read_text().splitlines() if events.exists() else []
        return [json.loads(line) for line in lines if '"kind": "shares"' in line]

    until(changes, process)
    for each in (*psutil.Process(process.pid).children(recursive=True), process):
        each.kill()
    process.communicate()
    assert program("resume", str(run), cwd=ROOT).returncode == 0
    assert changes()[0]["facts"]["samples"][0] > 8
    for step in (8, 16):
        checkpoint = run / "checkpoints" / f"step-{step:08}"
        done = program("verify", str(checkpoint), "--json", cwd=ROOT)
        assert json.loads(done.stdout)["identical"], done.stderr

    monkeypatch.setenv(TIMES, "1")
    other = str(program.folder / "other")
    options[-1] = other
    assert program(*options, "--max-steps", "16", *sets, cwd=ROOT).returncode == 0
    done = program("verify", str(run), "--against", other, "--json", cwd=ROOT)
    result = json.loads(done.stdout)
    cause = result["cause"]
    assert (done.returncode, cause["kind"], cause["key"]) == (1, "measured", "shares")
    assert cause["a"][0][1][0] > 8 and result["rounding"]
    assert result["first_difference"]["kind"] != "sample"  # all are of the same batch
