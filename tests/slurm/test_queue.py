"""States of jobs in the output of scontrol and sacct."""

import pytest

from slurm import queue
from slurm.queue import JobState, QueueError
from tests.slurm.programs import programs_in_path

RUNNING = (
    "JobId=7 JobName=x y JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=2 "
    "ExitCode=0:0 ReqNodeList=(null) ExcNodeList=(null) NodeList=node[1-2] BatchHost=node1\n"
)
PENDING = "JobId=7 JobState=PENDING Reason=BeginTime Restarts=1 ExitCode=0:0 NodeList=(null)\n"
INVALID_JOB = (1, "", "slurm_load_jobs error: Invalid job id specified\n")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    return programs_in_path(tmp_path / "bin", monkeypatch)


def test_scontrol_is_queried_first(programs):
    programs.add("scontrol", (0, RUNNING, ""), (0, PENDING, ""))
    assert queue.look_up("7") == JobState("RUNNING", "", "node[1-2]", 2)
    assert queue.look_up("7") == JobState("PENDING", "BeginTime", "", 1)
    assert programs.calls("scontrol")[0]["args"] == ["show", "job", "-o", "7"]


@pytest.mark.parametrize(
    ("response", "state"),
    [
        ((0, "CANCELLED by 0|node1\n", ""), JobState("CANCELLED", nodes="node1")),
        ((1, "", "Slurm accounting storage is disabled\n"), None),
        ((0, "", ""), None),
    ],
)
def test_sacct_is_queried_for_a_job_unknown_to_scontrol(programs, response, state):
    programs.add("scontrol", INVALID_JOB)
    programs.add("sacct", response)
    assert queue.look_up("7") == state


def test_an_unreachable_controller_does_not_mean_a_finished_job(programs):
    programs.add("scontrol", (1, "", "Unable to contact slurm controller (connect failure)\n"))
    with pytest.raises(QueueError, match="Unable to contact"):
        queue.look_up("7")


def test_requeueable_states_are_not_final():
    going_on = ("PENDING", "RUNNING", "COMPLETING", "PREEMPTED", "REQUEUED")
    assert not any(JobState(name).is_ended for name in going_on)
    assert JobState("COMPLETED").is_ended and JobState("NODE_FAIL").is_ended
