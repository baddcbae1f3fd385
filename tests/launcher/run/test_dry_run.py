"""A dry run shows the plan of a run and writes nothing."""

import pytest


@pytest.fixture(autouse=True)
def stays_empty(here):
    yield
    assert list(here.iterdir()) == []


def test_a_dry_run_shows_model_numbers_folder_and_notes(said):
    lines = said("--dry-run", "--nproc", "1").splitlines()
    assert lines[0] == "model    language:small, 887,936 parameters"
    for start in (
        "mode     default",
        "engine   local on ",
        "step     8 = 8 × 1 × 1 process",
    ):
        assert any(line.startswith(start) for line in lines), start
    assert any(line.startswith("folder   runs/language-small-default-local-") for line in lines)
    assert any("no model named" in line for line in lines)


def test_a_dry_run_in_json_is_complete(said):
    found = said("--dry-run", "--json", "--model", "language:tiny", "--nproc", "2")
    assert (found["settings"]["model"]["size"], found["parameters"]) == ("tiny", 124_224)
    assert found["batching"]["world_size"] == 2
    assert found["nproc"] == 2
    assert found["folder"].startswith("runs/language-tiny-default-ddp-")
