"""The next command of each fault is one that the program accepts, and a failure ends with it."""

import errno
import os
import shlex
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.run import faults, run_end, run_error
from gearshift.launcher.run.faults import FAULTS
from gearshift.launcher.run.supervisor import without_report
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.data.workers import WorkerDied
from gearshift.training.storage import StorageError
from tests.launcher import runs
from tests.launcher.given import resolved

PROGRAM = "python -m launcher "


@pytest.fixture
def run(here):
    """A run with a checkpoint, in the working directory."""
    return runs.trained(here / "runs" / "my run", resolved(), 100)


@pytest.mark.parametrize("name", FAULTS)
def test_the_program_accepts_the_command(name, run, capsys):
    fix = FAULTS[name].fix.format(**faults.commands(resolved(), run))
    assert fix.startswith(PROGRAM)
    command = shlex.split(fix.removeprefix(PROGRAM))
    assert main([*command, "--dry-run"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_run_without_a_checkpoint_starts_again_with_a_learning_rate_ten_times_off(here):
    begun = runs.begun(here / "new", resolved())
    found = faults.commands(resolved("optim.lr=0.003"), begun)
    assert found["retry"] == found["again"] == f"{PROGRAM}--config new/settings.yaml"
    assert found["lower_lr"] == "3e-4"


BUS_ERROR = (
    "DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit."
)
NCCL = (
    "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8, OpType=ALLREDUCE, "
    "NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600006 milliseconds before timing out."
)


def full(number):
    return StorageError(Path("runs/x/metrics.jsonl"), OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("report", "name"),
    [
        (run_error.of_error(RuntimeError(BUS_ERROR), 0), "shared_memory"),
        (
            run_error.of_error(WorkerDied("data-loader worker 7 died by signal 9; x"), 0),
            "dead_worker",
        ),
        (
            run_error.of_error(WorkerDied("data-loader worker 7 died by signal 7; x"), 0),
            "shared_memory",
        ),
        (run_error.of_error(full(errno.ENOSPC), 0), "disk_full"),
        (run_error.of_error(full(errno.EDQUOT), 0), "quota"),
        (run_error.of_error(full(errno.EACCES), 0), "permission"),
        (run_error.of_error(CheckpointError(f"step 4: {full(errno.ENOSPC)}"), 0), "disk_full"),
        (without_report(1, -9, "its last output", set()), "dead_rank"),
        (without_report(1, -6, NCCL, set()), "timeout"),
        (
            run_end.agreed({"exit_code": 1, "reason": "x", "fault": "nonfinite_later"}, 0),
            "nonfinite_later",
        ),
    ],
)
def test_a_failure_ends_with_its_cause_and_the_next_command(report, name, run):
    fault = FAULTS[name]
    shown = run_end.explained(report, resolved(), run)
    first, *_, cause, fix = shown.text.splitlines()[: -1 if fault.hint else None]
    assert report.text.startswith(first)
    assert cause == f"  cause         {fault.cause}"
    assert fix == f"  fix           {fault.fix.format(**faults.commands(resolved(), run))}"
