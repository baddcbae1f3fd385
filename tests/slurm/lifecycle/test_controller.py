"""Failures of the controller during a job."""

from contextlib import contextmanager

import pytest

from tests.slurm.lifecycle.conftest import clustered, differences
from tests.slurm.login import make_login

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fragile():
    """A cluster that does not take the nodes of a busy machine for dead when it starts again."""
    with clustered("SlurmdTimeout=300") as up:
        yield up


@pytest.fixture
def login(fragile, tmp_path):
    return make_login(fragile, tmp_path)


def test_a_crash_during_a_controller_outage_is_requeued_afterwards(fragile, login, unbroken):
    job = login.sbatch("fast", "crash", options=["--nodes=2"])
    job.wait_for_step(150)
    with controller_away(fragile, job):
        job.ranks()[1].kill()
        job.wait_for_line("Unable to contact slurm controller")
    job.wait("COMPLETED")
    assert differences(job, unbroken) == []
    assert job.result["requeues"] == 1


@contextmanager
def controller_away(cluster, job):
    """The controller is killed, and restarted at the end.

    It has the job in its saved state then: ranks pause until that is on disk, for seconds.
    A job that it remembers as pending keeps its later steps waiting forever.
    """
    ranks = job.ranks()
    for rank in ranks:
        rank.suspend()
    cluster.save_state(job.id)
    cluster.kill_controller()
    for rank in ranks:
        rank.resume()
    try:
        yield
    finally:
        cluster.start_controller()
