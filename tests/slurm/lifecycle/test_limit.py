"""The time limit of a job, as Slurm itself signals it."""

import pytest

pytestmark = pytest.mark.slow  # Slurm checks limits every 30 s


def test_a_job_longer_than_its_time_limit_continues_in_a_requeue(login):
    # Signalled 67 to 87 s before the end, that is 33 to 53 s into these two minutes.
    limit = ["--nodes=2", "--time=2", "--signal=B:USR1@60"]
    job = login.sbatch("fast", "long", options=limit, steps=20000)
    job.wait_for_restart(seconds=120)
    before = job.steps[-1]
    job.wait_for_step(before + 50)
    job.cancel()
    job.wait("CANCELLED")
    assert job.steps == list(range(1, job.steps[-1] + 1))
    assert (job.result["requeues"], job.result["lost_steps"]) == (1, 0)
    assert "TIME LIMIT" not in job.log
