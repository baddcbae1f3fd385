"""The command submit, on a real cluster."""

import re
import subprocess
import sys

import pytest

from tests.slurm.login import CLONE

pytestmark = pytest.mark.slow
SUBMIT = (sys.executable, "-m", "launcher", "submit")


def submit(login, *args):
    env, pipes = (
        login.cluster.environment | {"PYTHONPATH": str(CLONE / "src")},
        {"capture_output": True, "text": True},
    )
    return subprocess.run([*SUBMIT, *args], cwd=login.folder, env=env, **pipes)


def submitted(login, *args):
    """The lines of `submit ARGS`."""
    done = submit(login, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def job_of(login, lines, run):
    """The last job reported by submit."""
    number = re.findall(r"^job +([0-9]+)", "\n".join(lines), re.MULTILINE)[-1]
    return login.job(number, run, f"{run}/slurm/log/{number}.out")


def test_a_job_that_can_never_start_is_refused_and_leaves_nothing(login):
    for args in (("--nodes", "4"), ("--nodes", "1", "--partition", "nowhere")):
        done = submit(login, *login.training(20, {}), "--out", "never", *args)
        assert done.returncode == 2
        assert "error: Slurm rejected the job: " in done.stderr
        assert not (login.folder / "never").exists()
    assert login.type("squeue", "-h", "--name=gearshift-default") == ""


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
