"""The command `plan`: text, JSON, advice to paste, and errors."""

from __future__ import annotations

import json
import shlex

import pytest

from launcher.__main__ import main


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def test_a_plan_that_does_not_fit_prints_lines_that_do(capsys):
    machine = ["--gpus", "1", "--gpu-memory", "150MiB"]
    assert main(["plan", "--model", "language:small", *machine]) == 0
    text = capsys.readouterr().out
    assert "does not fit: " in text and " of 150.0 MiB" in text
    lines = [line for line in text.splitlines() if line.startswith("  python -m launcher ")]
    assert lines
    words = shlex.split(lines[0].partition("    (")[0])[3:]
    assert main(["plan", *words, *machine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True


def test_json_has_the_documented_keys(capsys):
    assert main(["plan", "--model", "language:tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    peak = found["device_peak_bytes"]
    assert peak["total"] == sum(n for kind, n in peak.items() if kind != "total")
    documented = {"host_peak_bytes", "bytes_per_step", "checkpoint_bytes", "parameters"}
    assert documented | {"flops_per_step", "fits", "advice"} <= found.keys()
    assert found["fits"] is True and found["advice"] == []


def test_bad_options_are_errors_with_the_fix(capsys):
    assert main(["plan", "--gpu-memory", "24", "--nodes", "0", "--lr", "much"]) == 2
    errors = capsys.readouterr().err
    assert "--gpu-memory 24GiB" in errors and "--nodes 0 is not a count" in errors
    assert "optim.lr" in errors
