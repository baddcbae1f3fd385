"""Nodes taken away by a partition of higher priority, and returned."""

import pytest

from tests.slurm.lifecycle.conftest import differences, occupied

pytestmark = pytest.mark.slow


def test_a_job_saves_without_a_grace_time_of_preemption(login, unbroken):
    """5 s from SIGTERM to SIGKILL; test_generations.py has a partition that signals and waits."""
    job = login.sbatch("fast", "abrupt", options=["--nodes=2", "-p", "abrupt"])
    job.wait_for_step(120)
    with occupied(login, "node[1-2]"):
        job.wait_for_restart()
    job.wait("COMPLETED")
    assert differences(job, unbroken) == []
    assert (job.result["requeues"], job.result["lost_steps"]) == (1, 0)


def test_a_job_resumes_on_more_nodes_if_available(login, unbroken):
    with occupied(login, "node2"):
        job = login.sbatch("fast", "more")
        job.wait_for_step(100)
        job.signal()
        job.wait_for_restart()
    job.wait("COMPLETED")
    assert job.result["world_size"] == 2
    assert differences(job, unbroken, rounding=1e-6) == []


def test_a_signal_before_the_start_of_the_ranks_requeues(login, unbroken):
    """The signal arrives while ranks import; none is lost, none ends a rank."""
    job = login.sbatch("fast", "early", options=["--nodes=2"])
    job.wait_for_line("generation 0")
    job.signal()
    job.wait_for_restart()
    job.wait("COMPLETED")
    assert differences(job, unbroken) == []
