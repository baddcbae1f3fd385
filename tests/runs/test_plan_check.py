"""Each run checks its plan: what does not fit is refused, and results hold what was predicted."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launcher.__main__ import main
from launcher.base import environment
from launcher.config import machine
from launcher.plan import background, check
from launcher.plan.check import PlanCheck
from launcher.plan.plan import MARGIN
from launcher.run.job_spec import NO_PLAN, PLAN, PLAN_FIRST
from tests.launcher.given import LAPTOP
from tests.runs.conftest import environment as variables
from tests.runs.conftest import result
from tests.slurm.cluster.processes import wait_until

pytestmark = [
    pytest.mark.skipif(not background.is_possible(), reason="the check forks, on Linux"),
    pytest.mark.usefixtures("one_thread"),
]
GIB = 2**30
SHORT = ["--model", "language:tiny", "--max-steps", "5", "--data", "mine.jsonl"]
SHORT += ["--set", "train.preview=false", "--set", "eval.last=false", "--set", "save.last=false"]
LARGE = ["--batch-size", "512", "--set", "train.global_batch=512"]
"""Needs about 1 GiB for activations."""
REFUSED = "error: this run needs more memory than there is: "
LIMITED = """
import sys
from dataclasses import replace
from launcher.config import machine
from launcher.plan import check

real = machine.detect_machine
ram = int(sys.argv.pop(1))
machine.detect_machine = lambda: replace(real(), ram_bytes=ram)
check.WAIT_S = check.TIGHT_WAIT_S = 300.0
from launcher.__main__ import program
program()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = (json.dumps({"prompt": f"what is {i}? " * 20, "response": f"{i}"}) for i in range(1400))
    Path("mine.jsonl").write_text("\n".join(lines))
    for name in ("WAIT_S", "TIGHT_WAIT_S"):  # however busy the machine is
        monkeypatch.setattr(check, name, 300.0)
    monkeypatch.setattr(environment.Process, "is_own", True)
    return tmp_path


@pytest.fixture
def small_machine(monkeypatch):
    """A machine with 256 MiB for a run in this process, whatever tests before have left in it."""
    ram = round((psutil.Process().memory_info().rss + GIB // 4) / (1 - MARGIN))
    monkeypatch.setattr(machine, "detect_machine", lambda: replace(LAPTOP, ram_bytes=ram))


@pytest.fixture
def no_children():
    """Whether no fork of the test is left, once a busy machine has had the time to end it."""
    before = psutil.Process().children()
    return lambda: wait_until(lambda: set(psutil.Process().children()) <= set(before), 60)


def test_a_refused_run_leaves_nothing_behind(small_machine, folder, no_children, capfd):
    assert main([*SHORT, *LARGE]) == 2
    error = capfd.readouterr().err
    assert error.startswith(REFUSED)
    assert "\n  fix           --set train.micro_batch=" in error
    assert [path.name for path in folder.iterdir()] == ["mine.jsonl"]
    assert no_children()


def test_force_starts_it_with_a_warning(small_machine, capfd):
    assert main([*SHORT, *LARGE, "--max-steps", "1", "--force", "--out", "run"]) == 0
    printed = capfd.readouterr()
    assert printed.err.count("warning: this run needs more memory than there is: ") == 1
    assert result(Path("run"))["predicted_memory_bytes"]["host"] > GIB


@pytest.mark.slow
def test_a_resumed_run_is_checked_too(small_machine, capfd):
    assert main([*SHORT, "--set", "save.last=true", "--out", "run"]) == 0
    before = sorted(Path("run").rglob("*"))
    capfd.readouterr()
    changes = ["--max-steps", "9", "--batch-size", "512", "--set", "train.accumulation=1"]
    assert main(["resume", "run", *changes, "--reset", "data", "--reset", "schedule"]) == 2
    assert REFUSED in capfd.readouterr().err
    assert sorted(Path("run").rglob("*")) == before


def test_what_was_predicted_stands_beside_what_was_measured():
    words = [*SHORT, "--max-steps", "12", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(64 * GIB), *words],
        env=variables(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = result(Path("run"))
    measured, predicted = found["peak_memory_bytes"], found["predicted_memory_bytes"]
    assert (predicted["device"], measured["device"]) == (None, None)
    assert predicted["host"] == pytest.approx(measured["host"], rel=0.3)
    assert found["predicted_s"] == pytest.approx(found["wall_s"], rel=0.9)
    printed = done.stdout
    assert " (predicted: " in printed.partition("finished ")[2].partition("\n")[0]
    assert " (predicted: " in printed.partition("memory ")[2].partition("\n")[0]


def test_a_run_goes_on_when_the_child_hangs(small_machine, monkeypatch, tmp_path, no_children):
    def hang(self, send):
        (tmp_path / "hung").touch()
        time.sleep(600)

    monkeypatch.setattr(PlanCheck, "_plan", hang)
    monkeypatch.setattr(check, "WAIT_S", 0.1)
    began = time.monotonic()
    assert main([*SHORT, *LARGE, "--max-steps", "1", "--out", "run"]) == 0
    assert time.monotonic() - began < 300
    assert Path("hung").exists()
    assert result(Path("run"))["predicted_memory_bytes"] is None
    assert no_children()


def test_a_measured_run_that_was_planned_before_makes_no_plan(small_machine, monkeypatch):
    monkeypatch.setenv(PLAN, NO_PLAN)
    monkeypatch.setattr(check, "Background", pytest.fail)
    assert main([*SHORT, *LARGE, "--max-steps", "1", "--out", "run"]) == 0
    assert result(Path("run"))["predicted_memory_bytes"] is None


@pytest.mark.slow
def test_a_measured_run_waits_for_its_plan(small_machine, monkeypatch, capfd):
    monkeypatch.setenv(PLAN, PLAN_FIRST)
    monkeypatch.setattr(check, "WAIT_S", 0.0)  # how long others wait
    assert main([*SHORT, *LARGE]) == 2
    assert capfd.readouterr().err.startswith(REFUSED)


@pytest.mark.slow
def test_both_ranks_exit_with_2(folder):
    ranks = []
    for rank in range(2):
        given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29617, "OMP_NUM_THREADS": 1}
        words = [
            sys.executable,
            "-c",
            LIMITED,
            "1350000000",
            *SHORT,
            "--batch-size",
            "256",
            "--out",
            "run",
        ]
        places = {key: str(value) for key, value in given.items()}
        ranks.append(
            subprocess.Popen(
                [*words, "--engine", "ddp", "--set", "train.global_batch=512"],
                env={**variables(), **places},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    texts = [rank.communicate(timeout=180)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], texts
    assert REFUSED in texts[0]
    assert "2 processes" in texts[0]
    assert [path.name for path in folder.iterdir()] == ["mine.jsonl"]
