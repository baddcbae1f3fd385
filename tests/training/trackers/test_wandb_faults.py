"""Every failure of a server, service or account is one warning."""

import os

import psutil
import pytest

from tests.training.trackers.test_wandb_offline import rows
from tests.training.trackers.tracked_run import Generation
from training.trackers.metrics_reader import STEP

# A server that hangs does so for longer than a test may take.


def recorded_completely(generation, folder):
    (warning,) = generation.warnings
    assert [row[STEP] for row in rows(folder)] == [1, 2, 3]
    assert "to send it:  " in warning
    assert len((folder / "metrics.jsonl").read_bytes().splitlines()) == 3
    return warning


@pytest.mark.parametrize("how", [401, pytest.param("hang", marks=pytest.mark.slow)])
def test_a_server_that_fails_from_the_start(server, tmp_path, how):
    server.fails = how
    generation = Generation(tmp_path, tracking={"wait_s": 2}).begin().log(1, 2, 3).end()
    assert "wandb sync" in recorded_completely(generation, tmp_path)


@pytest.mark.slow
def test_a_server_that_is_gone_in_mid_run(server, tmp_path):
    generation = Generation(tmp_path, tracking={"wait_s": 2}).begin().log(1).until_open()
    server.close()
    generation.log(2, 3).end()
    assert f"send {tmp_path}" in recorded_completely(generation, tmp_path)


@pytest.mark.slow
def test_a_killed_service(server, tmp_path):
    generation = Generation(tmp_path).begin().log(1).until_open()
    (process,) = [callback._process._process.pid for callback in generation.callbacks]
    for child in psutil.Process(process).children(recursive=True):
        child.kill()
    generation.log(2).log(3).end()
    (warning,) = generation.warnings
    assert f"send {tmp_path}" in warning  # W&B's files may lack what it had not written yet


def test_without_wandb_there_is_one_warning(tmp_path, monkeypatch):
    broken = tmp_path / "path" / "wandb"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no W&B here')\n")
    monkeypatch.setenv(
        "PYTHONPATH", f"{broken.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    generation = Generation(tmp_path).begin().log(1).end()
    assert [("no W&B here" in text) for text in generation.warnings] == [True]


@pytest.mark.slow
def test_the_run_never_waits_for_a_suspended_process(server, tmp_path):
    generation = Generation(tmp_path, tracking={"wait_s": 1}).begin()
    (process,) = [callback._process._process for callback in generation.callbacks]
    psutil.Process(process.pid).suspend()
    generation.log(*range(1, 3000))  # more than a pipe holds
    generation.end()
    assert len(rows(tmp_path)) == 2999
