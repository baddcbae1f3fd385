"""Sites where a job may not be requeued: a successor job continues its run."""

import re

import pytest

from tests.slurm.lifecycle.conftest import differences

pytestmark = pytest.mark.slow


def test_a_job_that_cannot_be_requeued_continues_in_a_successor(login, unbroken):
    job = login.sbatch("fast", "successor", options=["--nodes=2", "--no-requeue"])
    job.wait_for_step(100)
    job.signal()
    job.wait("COMPLETED")
    following = re.search(r"continues as job (\d+)", job.log)
    assert following, job.output
    name = f"gearshift-fast-{following[1]}.out"
    successor = login.job(following[1], "successor", name)
    successor.wait("COMPLETED")
    assert differences(successor, unbroken) == []
    assert successor.facts["Requeue"] == "0"
    assert successor.result["requeues"] == 1
