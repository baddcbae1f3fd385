"""The command submit, on a real cluster."""

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.slurm.lifecycle.conftest import differences
from tests.slurm.login import CLONE

SUBMIT = (sys.executable, "-m", "launcher", "submit")


@contextmanager
def submitted(login, *args):
    """`submit --wait ARGS`, started, and its first lines, up to those on how to resume."""
    program = subprocess.Popen(
        [*SUBMIT, "--wait", *args],
        cwd=login.folder,
        env=login.cluster.environment | {"PYTHONPATH": str(CLONE), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with program as process:
        try:
            lines = []
            while not (lines and lines[-1].startswith("resume")):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            yield process, lines
        finally:
            process.kill()


def job_of(login, lines, run):
    """The job reported by submit."""
    [number] = re.findall(r"^job +([0-9]+)", "".join(lines), re.MULTILINE)
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
def test_a_submitted_run_is_followed_through_a_requeue_to_its_end(login, unbroken):
    args = (*login.training(300, {}), "--fast", "--nodes", "2", "--out", "followed")
    with submitted(login, *args) as (process, lines):
        job = job_of(login, lines, "followed")
        job.wait_for_step(100)
        job.signal()
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "requeued 1×" in output and "finished   300 steps" in output
    assert re.findall(r"^step +(\d+)/300", output, re.MULTILINE) == [
        str(step) for step in job.steps
    ]
    assert differences(job, unbroken) == []


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_and_a_cancelled_job_resumes_with_the_printed_command(login):
    args = (*login.training(300, {}), "--nodes", "1", "--out", "left")
    with submitted(login, *args) as (process, lines):
        job = job_of(login, lines, "left")
        job.wait_for_step(30)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode == 130, output
    assert f"the job continues; cancel: scancel {job.id}" in output
    assert job.state == "RUNNING"
    job.cancel()
    job.wait("CANCELLED")
    again = lines[-1].split("launcher ")[1].split()
    assert again[0] == "submit"
    with submitted(login, *again[1:], "--nodes", "1") as (process, lines):
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert job.steps == list(range(1, 301))


@pytest.mark.slow
def test_stages_are_jobs_with_dependencies(login):
    args = ("--model", "eeg_text:tiny", "--mode", "staged", "--max-steps", "4", "--out", "stages")
    with submitted(login, *args, "--set", "device=cpu") as (process, _):
        output, _ = process.communicate()
    assert process.returncode == 0, output
    for name in ("1-encoder", "2-text"):
        result = json.loads((login.folder / "stages" / name / "result.json").read_text())
        assert (result["status"], result["steps"]) == ("completed", 4)
