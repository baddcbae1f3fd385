"""Jobs that cannot start: the reason is reported, no files remain, nothing is retried."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_a_second_job_is_refused_while_the_first_one_trains(login):
    first = login.sbatch("fast", "one", options=["--nodes=1"], steps=1500)
    first.wait_for_step(20)
    second = login.sbatch("fast", "one", options=["--nodes=1"])
    second.wait("FAILED")
    assert (second.facts["ExitCode"], second.facts["Restarts"]) == ("2:0", "0")
    assert "error: the run folder one" in second.log
    assert first.state == "RUNNING"
    first.wait("COMPLETED")
    assert first.steps == list(range(1, 1501))


def test_a_run_folder_that_cannot_be_created_is_an_error(login):
    job = login.sbatch("fast", "text.txt/run")
    job.wait("FAILED")
    assert (job.facts["ExitCode"], job.facts["Restarts"]) == ("2:0", "0")
    assert "text.txt/run" in job.log
    assert "--out" in job.log


def test_invalid_arguments_leave_no_run_folder(login):
    job = login.sbatch("fast", "never", "--set", "optim.lr=fast", options=["--nodes=2"])
    job.wait("FAILED")
    assert job.facts["ExitCode"] == "2:0"
    assert "error: optim.lr 'fast' is text, not a number" in job.log
    assert not (login.folder / "never").exists()


def test_a_missing_log_folder_ends_the_job_before_its_start(login):
    """Slurm creates no folders and reports nothing: `python -m launcher submit` creates them."""
    job = login.sbatch("fast", "unlogged", options=["--output=logs/%j.out"])
    job.wait("FAILED")
    assert job.facts["ExitCode"] == "0:53"
    assert not (login.folder / "unlogged").exists()
