"""A dry run shows the plan of a run and writes nothing."""

import json

import pytest

from launcher.__main__ import main


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


def test_a_dry_run_in_json_is_complete(dry_run):
    found = json.loads(dry_run("--json", "--model", "language:tiny", "--nproc", "2"))
    assert (found["settings"]["model"]["size"], found["parameters"]) == ("tiny", 124_224)
    assert found["batching"]["world_size"] == 2
    assert [process["rank"] for process in found["processes"]] == [0, 1]
    assert found["folder"].startswith("runs/language-tiny-default-ddp-")
