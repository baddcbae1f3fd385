"""Ranks that are killed, and ranks that fail by their own error."""

import pytest

from tests.launcher import custom_tasks
from tests.slurm.login import read

pytestmark = pytest.mark.slow

FAULTY = f"""\
import os
from pathlib import Path

{custom_tasks.HEAD}
{custom_tasks.LINE}
{custom_tasks.BODY}

class Faulty(Line):
    defaults = {{"train.max_steps": 5000, "train.epochs": 5000}}

    def measure(self, model, batch):
        if os.environ["SLURM_PROCID"] == "1" and Path("fail").exists():
            raise ValueError("the second rank has found something")
        return super().measure(model, batch)
"""


def test_a_job_with_a_killed_rank_resumes_once_from_its_checkpoint_and_then_fails(login, unbroken):
    few = {"GEARSHIFT_MAX_CRASHES": "1"}
    job = login.sbatch("fast", "often", options=["--nodes=2"], environment=few)
    job.wait_for_step(150)
    job.ranks()[1].kill()
    job.wait_for_restart()
    lost = job.steps[-1] - 100
    job.wait_for_line("generation 1")
    job.wait_for_step(250)
    assert f'"lost_steps": {lost}' in read(job.folder / "events.jsonl")
    job.ranks()[1].kill()
    job.wait("FAILED")
    assert {*job.losses.items()} <= {*unbroken.losses.items()}
    assert (job.facts["ExitCode"], job.facts["Restarts"]) == ("1:0", "1")
    assert "task 1: Killed" in job.log
    assert "lost" not in job.log.partition("task 1: Killed")[0]


def test_an_error_of_one_rank_is_reported_first_and_not_retried(login):
    module = custom_tasks.write(login.folder, FAULTY, "faulty")
    args = ["--model", f"{module}:Faulty", "--batch-size", "4", "--set", "log.every=1"]
    job = login.submit("fast", "fault", *args, options=["--nodes=2"])
    job.wait_for_step(20)
    (login.folder / "fail").touch()
    job.wait("FAILED")
    assert (job.facts["ExitCode"], job.facts["Restarts"]) == ("1:0", "0")
    before, _, after = job.log.partition("error: rank 1 on node2 failed: ValueError")
    assert after.startswith(": the second rank has found something")
    assert "error" not in before and "lost" not in before
