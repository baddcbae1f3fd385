"""Common events of a job: preemption, cancellation, its time limit, a successor; and doubles."""

import re

import pytest

from gearshift.training.trackers.wandb import STEP
from tests.slurm.lifecycle.conftest import differences, occupied
from tests.training.trackers import wandb_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def preempted(login):
    """Two nodes; one is taken away, and the job continues on the other. Tracked with W&B."""
    offline = {"WANDB_MODE": "offline"}
    job = login.sbatch("fast", "preempted", "--track", "wandb", environment=offline)
    job.wait_for_step(150)
    with occupied(login, "node2"):
        job.wait_for_restart()
        job.wait_for_line("generation 1")
    return job


@pytest.fixture(scope="module")
def warned(login, preempted):
    """Near its time limit; submitted while the other job still runs, since both take a while."""
    job = login.sbatch("fast", "warned", options=["--nodes=2"])
    job.wait_for_step(100)
    job.signal()
    return job


@pytest.fixture(scope="module")
def cancelled(login, warned):
    job = login.sbatch("fast", "cancelled")
    job.wait_for_step(50)
    job.cancel()
    job.wait("CANCELLED")
    return job


def test_a_preempted_job_resumes_on_the_remaining_node(preempted, unbroken):
    preempted.wait("COMPLETED")
    assert differences(preempted, unbroken, rounding=1e-6) == []
    assert preempted.result["world_size"] == 1
    assert preempted.result["requeues"] == 1


def test_a_preempted_job_is_one_run_in_w_and_b_with_each_step_once(preempted):
    preempted.wait("COMPLETED")
    files = wandb_file.files(preempted.folder)
    rows = [row for row in wandb_file.rows(files[-1]) if "train/loss" in row]
    assert {row[STEP]: row["train/loss"] for row in rows} == preempted.losses
    assert len(rows) == len(preempted.losses)


def test_a_job_near_its_time_limit_saves_and_resumes_bit_by_bit(warned, unbroken):
    warned.wait("COMPLETED")
    assert differences(warned, unbroken) == []
    assert warned.result["requeues"] == 1
    assert warned.result["lost_steps"] == 0


def test_a_cancelled_job_has_saved_and_stays_cancelled(cancelled):
    cancelled.wait("CANCELLED")
    last = (cancelled.folder / "last").resolve().name
    assert last == f"step-{cancelled.steps[-1]:08}"
    assert cancelled.facts["Restarts"] == "0"


def test_another_job_on_the_same_run_folder_is_refused(login, unbroken, cancelled):
    before = (cancelled.folder / "metrics.jsonl").read_bytes()
    other = login.sbatch("fast", "cancelled")
    other.wait("FAILED")
    assert other.facts["ExitCode"] == "2:0"
    assert "resume" in other.log
    assert (cancelled.folder / "metrics.jsonl").read_bytes() == before


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
