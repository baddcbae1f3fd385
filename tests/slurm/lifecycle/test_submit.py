"""The command submit, on a real cluster."""

import json
import re
import subprocess
import sys

import pytest

from tests.slurm.lifecycle.conftest import differences
from tests.slurm.login import CLONE

SUBMIT = (sys.executable, "-m", "launcher", "submit")


def submitted(login, *args):
    """The lines of `submit ARGS`."""
    done = subprocess.run(
        [*SUBMIT, *args],
        cwd=login.folder,
        env=login.cluster.environment | {"PYTHONPATH": str(CLONE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def job_of(login, lines, run):
    """The last job reported by submit."""
    number = re.findall(r"^job +([0-9]+)", "\n".join(lines), re.MULTILINE)[-1]
    return login.job(number, run, f"{run}/slurm/log/{number}.out")


def test_a_job_that_can_never_start_is_refused_and_leaves_nothing(login):
    for args in (("--nodes", "4"), ("--nodes", "1", "--partition", "nowhere")):
        done = subprocess.run(
            [*SUBMIT, *login.training(20, {}), "--out", "never", *args],
            cwd=login.folder,
            env=login.cluster.environment | {"PYTHONPATH": str(CLONE)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "error: Slurm rejected the job: " in done.stderr
        assert not (login.folder / "never").exists()
    assert login.type("squeue", "-h", "--name=gearshift-default") == ""


@pytest.mark.slow
def test_a_submitted_run_is_requeued_and_ends_as_an_unbroken_one(login, unbroken):
    args = (*login.training(300, {}), "--fast", "--nodes", "2", "--out", "requeued")
    job = job_of(login, submitted(login, *args), "requeued")
    job.wait_for_step(100)
    job.signal()
    job.wait_for_restart()
    job.wait("COMPLETED")
    assert differences(job, unbroken) == []


@pytest.mark.slow
def test_a_cancelled_job_resumes_with_the_printed_command(login):
    args = (*login.training(300, {}), "--nodes", "1", "--out", "left")
    lines = submitted(login, *args)
    job = job_of(login, lines, "left")
    job.wait_for_step(30)
    job.cancel()
    job.wait("CANCELLED")
    again = lines[-1].split("launcher ")[1].split()
    assert again[0] == "submit"
    job = job_of(login, submitted(login, *again[1:], "--nodes", "1"), "left")
    job.wait("COMPLETED")
    assert job.steps == list(range(1, 301))


@pytest.mark.slow
def test_stages_are_jobs_with_dependencies(login):
    args = ("--model", "eeg_text:tiny", "--mode", "staged", "--max-steps", "4", "--out", "stages")
    job_of(login, submitted(login, *args, "--set", "device=cpu"), "stages").wait("COMPLETED")
    for name in ("1-encoder", "2-text"):
        result = json.loads((login.folder / "stages" / name / "result.json").read_text())
        assert (result["status"], result["steps"]) == ("completed", 4)
