"""Ranks that are killed, and ranks that fail by their own error."""

from __future__ import annotations

import pytest

from tests.launcher import custom_tasks
from tests.slurm.lifecycle.conftest import differences

pytestmark = pytest.mark.slow

FAULTY = f"""\
import os
from pathlib import Path

{custom_tasks.HEAD}
class Faulty(CustomTask):
    defaults = {{"train.max_steps": 5000, "train.epochs": 5000}}

    class Model(BaseModel):
        width: int = 4

    def samples(self, split):
        return [(torch.full((2,), float(i)), float(i % 2)) for i in range(8)]

    def build(self):
        return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))

    def measure(self, model, batch):
        if os.environ["SLURM_PROCID"] == "1" and Path("fail").exists():
            raise ValueError("the second rank has found something")
        error = model(batch["input"]).squeeze(1) - batch["target"].float()
        return {{"loss": error.square().sum()}}
"""


def test_a_job_with_a_killed_rank_resumes_from_its_newest_checkpoint(login, unbroken):
    job = login.sbatch("fast", "killed", options=["--nodes=2"])
    job.wait_for_step(150)
    job.ranks()[1].kill()
    job.wait_for_restart()
    lost = job.steps[-1]
    job.wait("COMPLETED")
    assert differences(job, unbroken) == []
    assert job.result["requeues"] == 1
    assert job.result["lost_steps"] == lost - 100


def test_a_job_with_a_killed_rank_in_each_generation_fails(login):
    few = {"GEARSHIFT_MAX_CRASHES": "1"}
    job = login.sbatch("fast", "often", options=["--nodes=2"], environment=few)
    for generation in range(2):
        job.wait_for_line(f"generation {generation}")
        job.wait_for_step(50 + 100 * generation)
        job.ranks()[1].kill()
        if generation == 0:
            job.wait_for_restart()
    job.wait("FAILED")
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
