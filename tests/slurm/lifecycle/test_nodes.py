"""Failures of nodes during a job."""

import pytest

from tests.slurm.cluster.processes import wait_until
from tests.slurm.lifecycle.conftest import clustered, differences
from tests.slurm.login import make_login

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fragile():
    """A cluster with nodes that are damaged and restored."""
    with clustered() as up:
        yield up


@pytest.fixture
def login(fragile, tmp_path):
    return make_login(fragile, tmp_path)


def test_a_job_with_a_powered_off_node_resumes_on_the_other(fragile, login, unbroken):
    job = login.sbatch("fast", "power")
    job.wait_for_step(150)
    fragile.machines.cut_power(2)
    try:
        job.wait_for_restart()  # 10 to 17 s: SlurmdTimeout is 8
        job.wait("COMPLETED")
    finally:
        fragile.restore_node(2)
    assert differences(job, unbroken, rounding=1e-6) == []
    assert job.result["world_size"] == 1
    assert job.result["requeues"] == 1
    assert job.result["lost_steps"] > 0


def test_ranks_of_a_node_marked_down_are_fenced_off(fragile, login):
    """Only slurmd dies: the node's rank continues training, beside the next generation."""
    long = {"steps": 20000, "settings": {"save.every": "500"}}
    job = login.sbatch("fast", "down", options=["--nodes=1"], **long)
    job.wait_for_step(10)
    assert job.facts["NodeList"] == "node1"
    [stale] = job.ranks()
    fragile.machines.kill_slurmd(1)
    try:
        job.wait_for_line("generation 1")
        assert stale.is_running()
        # Its output is not read: Slurm has ended the srun that did.
        assert wait_until(lambda: not stale.is_running(), seconds=60)
        job.wait_for_step(job.steps[-1] + 100)
        job.cancel()
        job.wait("CANCELLED")
    finally:
        fragile.restore_node(1)
    assert job.steps == list(range(1, job.steps[-1] + 1))
    assert (job.folder / "last").resolve().name == f"step-{job.steps[-1]:08}"
    assert (job.facts["Restarts"], job.result["requeues"]) == ("1", 1)
