"""A dry run shows the plan of a run and writes nothing."""

import json

import pytest

from launcher.__main__ import main
from launcher.run.prepare import PreparedRun, first_line
from tests.launcher.given import resolved, set_torchrun


@pytest.fixture
def dry_run(capsys, tmp_path, monkeypatch):
    """The output of a dry run, which must write nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        assert main(["--dry-run", *args]) == 0
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return run


def test_a_dry_run_shows_model_numbers_folder_and_notes(dry_run):
    lines = dry_run("--nproc", "1").splitlines()
    assert lines[:2] == ["model    language:small, 887,936 parameters", "mode     default"]
    assert lines[2].startswith("engine   local on ")
    assert any(line.startswith("step     16 samples = micro-batch 16 × ") for line in lines)
    assert any(line.startswith("folder   runs/language-small-default-local-") for line in lines)
    assert any("no model named" in line for line in lines)


def test_a_dry_run_shows_processes_threads_and_changed_settings_with_their_origin(dry_run):
    sets = ("--set", "engine.threads=3", "--set", "device=cpu")
    printed = dry_run("--nproc", "2", "--lr", "3e-4", *sets)
    assert "engine   ddp on cpu, 2 processes, 3 threads each" in printed
    assert ["lr", "3e-4", "--lr", "3e-4"] in [line.split() for line in printed.splitlines()]
    assert "betas" not in printed


def test_a_dry_run_in_json_is_complete(dry_run):
    found = json.loads(dry_run("--json", "--model", "language:tiny", "--nproc", "2"))
    assert (found["settings"]["model"]["size"], found["parameters"]) == ("tiny", 124_224)
    assert found["batching"]["world_size"] == 2
    assert [process["rank"] for process in found["processes"]] == [0, 1]
    assert found["folder"].startswith("runs/language-tiny-default-ddp-")


def test_a_dry_run_under_torchrun_starts_no_processes(dry_run, monkeypatch):
    set_torchrun(monkeypatch, rank=0)
    printed = dry_run()
    assert "one of 2 processes started by torchrun" in printed
    assert json.loads(dry_run("--json"))["processes"] == []


def test_the_first_line_names_model_device_and_folder(tmp_path):
    run_settings = resolved(engine="zero2", nproc="2")
    line = first_line(PreparedRun(run_settings, None, tmp_path, "", threads=1))
    assert line == (
        f"language:tiny, mode default, engine zero2 on cpu, 2 processes, 1 thread each; "
        f"run folder {tmp_path}"
    )
