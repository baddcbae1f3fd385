"""A server, a service or an account that fails in some way is one warning, and no more."""

import os
import time

import psutil
import pytest

from tests.training.trackers.test_wandb_offline import rows
from tests.training.trackers.tracked_run import Course
from training.trackers.metrics_reader import STEP

DEADLINE_S = 60
"""Far above what an end may take; a server that hangs does so for ten minutes."""


def wholly_kept(course, folder):
    (warning,) = course.warnings
    assert [row[STEP] for row in rows(folder)] == [1, 2, 3]
    assert "to send them:  " in warning
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) == 3
    return warning


@pytest.mark.parametrize(
    "how",
    [
        401,
        pytest.param(403, marks=pytest.mark.slow),
        pytest.param(500, marks=pytest.mark.slow),
        pytest.param("drop", marks=pytest.mark.slow),
        "hang",
    ],
)
def test_a_server_that_fails_from_the_start(server, tmp_path, how):
    server.fails = how
    began = time.monotonic()
    course = Course(tmp_path, tracking={"wait_s": 2}).begin().log(1, 2, 3).end()
    assert time.monotonic() - began < DEADLINE_S
    assert "wandb sync" in wholly_kept(course, tmp_path)


@pytest.mark.slow
def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)  # the port of nobody
    course = Course(tmp_path, tracking={"wait_s": 2}).begin().log(1, 2, 3).end()
    wholly_kept(course, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [403, 500, "hang", "drop", "gone"])
def test_a_server_that_fails_in_mid_run(server, tmp_path, how):
    course = Course(tmp_path, tracking={"wait_s": 2}).begin().log(1).until_open()
    if how == "gone":
        server.close()
    else:
        server.fails, server.fails_streams_only = how, True
    began = time.monotonic()
    course.log(2, 3).end()
    assert time.monotonic() - began < DEADLINE_S
    assert f"send {tmp_path}" in wholly_kept(course, tmp_path)


@pytest.mark.slow
def test_a_service_that_is_killed(server, tmp_path):
    course = Course(tmp_path).begin().log(1).until_open()
    (process,) = [callback._companion._process.pid for callback in course.callbacks]
    for child in psutil.Process(process).children(recursive=True):
        child.kill()
    course.log(2).log(3).end()
    (warning,) = course.warnings
    assert f"send {tmp_path}" in warning  # W&B's files may lack what it had not written yet


def test_a_process_that_is_killed_leaves_the_run_as_it_is(server, tmp_path):
    course = Course(tmp_path).begin().log(1)
    for callback in course.callbacks:
        callback._companion._process.kill()
        callback._companion._process.wait()
    course.log(2).log(3).end()
    wholly_kept(course, tmp_path)


def test_without_wandb_there_is_one_warning(tmp_path, monkeypatch):
    broken = tmp_path / "path" / "wandb"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no W&B here')\n")
    monkeypatch.setenv(
        "PYTHONPATH", f"{broken.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    course = Course(tmp_path).begin().log(1).end()
    assert [("no W&B here" in text) for text in course.warnings] == [True]


def test_nothing_waits_for_a_process_that_is_stopped(server, tmp_path):
    course = Course(tmp_path, tracking={"wait_s": 1}).begin()
    (process,) = [callback._companion._process for callback in course.callbacks]
    psutil.Process(process.pid).suspend()
    began = time.monotonic()
    course.log(*range(1, 3000))  # more than a pipe holds
    assert time.monotonic() - began < DEADLINE_S
    course.end()
    assert len(rows(tmp_path)) == 2999
