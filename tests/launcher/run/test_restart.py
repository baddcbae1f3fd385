"""After a fault the ranks are started again, from the newest checkpoint, as often as is wanted."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.base import exit_codes
from launcher.resume import find
from launcher.resume.resume_point import Resume
from launcher.run import restart
from launcher.run.job_spec import Job
from tests.launcher.given import resolved
from tests.launcher.runs import begun, saved, trained

SETTINGS = resolved("engine.max_restarts=2", nproc="2")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a scene of ranks.py with two restarts: how it ended, and what was told."""
    monkeypatch.chdir(tmp_path)
    begun(Path("x"), SETTINGS)

    def run_scene(scene: str, resolved=SETTINGS, resumed: Resume | None = None):
        monkeypatch.setenv("SCENE", scene)
        told = []
        job = Job(resolved, Path("x").absolute(), True, resumed)
        ending = restart.supervise(job, 1, told.append, "tests.launcher.ranks")
        return ending, told

    return run_scene


def tries() -> list[str]:
    """What the first rank of each try was told to go on from."""
    return Path("x/tries").read_text().splitlines()


@pytest.mark.slow
def test_faults_are_told_and_the_ranks_started_again(run, capfd):
    ending, told = run("faults")
    assert [report.kind for report in told] == ["fault"] * 3
    assert (ending.kind, ending.exit_code) == ("fault", exit_codes.FAILURE)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("restart")]
    assert lines == ["restart 1 of 2 from the beginning", "restart 2 of 2 from the beginning"]
    log = Path("x/log.txt").read_text()
    assert "the second rank broke" in log and lines[1] in log
    assert tries() == ["None", "x None ()", "x None ()"]


def test_a_restart_goes_on_from_the_newest_checkpoint_until_it_works(run, capfd):
    ending, told = run("saves, then fails once")
    assert (ending.kind, ending.exit_code, len(told)) == ("ended", 0, 1)
    assert "restart 1 of 2 from step 5\n" in capfd.readouterr().err
    assert len(tries()) == 2


HELD = resolved("train.micro_batch=8", "train.accumulation=2", nproc="2")


def test_where_memory_ran_out_the_ranks_begin_again_with_smaller_micro_batches(run, capfd):
    ending, told = run("fits 2", HELD)
    assert (ending.kind, [one.kind for one in told]) == ("ended", ["out of memory"] * 2)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("restart")]
    assert lines == [f"restart with micro-batches of {n} from step 5" for n in (4, 2)]
    events = [json.loads(line) for line in Path("x/events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["out_of_memory"] * 2
    assert (events[1]["facts"]["micro_batch"], events[1]["facts"]["accumulation"]) == (2, 4)


@pytest.mark.slow
def test_memory_that_runs_out_a_fourth_time_ends_the_run(run):
    ending, told = run("fits 0", resolved("train.micro_batch=32", nproc="2"))
    assert (ending.kind, ending.exit_code, len(told)) == ("out of memory", exit_codes.FAILURE, 4)
    assert "ran out of memory with micro-batches of 2: there is none left" in ending.text


@pytest.mark.parametrize("scene", ["data", "nonfinite"])
def test_what_would_come_again_is_not_tried_again(run, scene):
    ending, _ = run(scene)
    assert ending.exit_code != 0
    assert "restart" not in Path("x/log.txt").read_text()


def test_a_fault_after_a_signal_ends_the_run(run):
    def send():
        while not Path("x/ready-1").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()
    ending, told = run("breaks at a signal")
    assert (ending.kind, len(told)) == ("fault", 1)
    assert "restart" not in Path("x/log.txt").read_text()


def test_a_folder_that_was_deleted_is_no_place_to_start_again(run):
    ending, told = run("folder gone")
    assert (told, ending.kind) == ([ending], "fault")
    assert "the run folder has gone" in ending.text


def test_without_the_setting_nothing_is_started_again(run):
    none = resolved(nproc="2")
    _, told = run("faults", none)
    assert len(told) == 1


def test_one_process_is_watched_where_it_may_be_started_again():
    assert restart.is_supervised(resolved("engine.max_restarts=1", nproc="1"))
    assert not restart.is_supervised(resolved(nproc="1"))


RESET = ("schedule",)


@pytest.mark.parametrize(
    ("later", "expected"),
    [([], Resume(Path("x"), 10, RESET)), ([20], Resume(Path("x")))],
)
def test_what_begins_anew_does_so_again_unless_it_was_saved_since(
    tmp_path, monkeypatch, later, expected
):
    monkeypatch.chdir(tmp_path)
    trained(Path("x"), SETTINGS, 10)
    first = restart.First(Job(SETTINGS, Path("x"), True, Resume(Path("x"), 10, RESET)))
    for step in later:
        saved(Path("x"), step, SETTINGS)
    job, step = first.again(SETTINGS.batching)
    assert (job.resume, step) == (expected, max([10, *later]))


def test_a_copy_that_saved_nothing_goes_on_from_the_old_run_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(Path("old"), SETTINGS, 10)
    begun(Path("new"), SETTINGS)
    job = Job(SETTINGS, Path("new"), True, Resume(Path("old")))
    first = restart.First(job)
    assert first.again(SETTINGS.batching) == (job, 10)
    saved(Path("new"), 15, SETTINGS)
    assert first.again(SETTINGS.batching) == (replace(job, resume=Resume(Path("new"))), 15)


def test_later_checkpoints_of_another_past_are_no_progress(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(Path("x"), SETTINGS, 10, 20)
    job = Job(SETTINGS, Path("x"), True, Resume(Path("x"), 10))
    assert restart.First(job).again(SETTINGS.batching) == (job, 10)
    assert find.newest_step(Path("x")) == 20
