"""The last line tells where the run is and what to type next."""

import shlex
from pathlib import Path

import pytest

from launcher.run import last_line
from tests.launcher.given import resolved
from tests.launcher.runs import begun, trained


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", [75, 130])
def test_a_stopped_run_goes_on(code):
    folder = trained(Path("runs/x"), resolved(), 10)
    line = last_line.text(code, folder, embedded=True)
    assert line == "run folder runs/x; go on: python -m launcher resume runs/x"


def test_a_run_that_failed_goes_on_from_what_it_saved():
    folder = trained(Path("runs/x"), resolved(), 10)
    assert last_line.text(1, folder, embedded=True) == (
        "run folder runs/x; what happened: runs/x/log.txt; go on: python -m launcher resume runs/x"
    )


def test_a_run_that_saved_nothing_can_only_be_run_again():
    folder = begun(Path("runs/x"), resolved())
    again = "run it again: python -m launcher --config runs/x/settings.yaml"
    assert last_line.text(75, folder, embedded=True) == f"run folder runs/x; {again}"
    assert last_line.text(1, folder, embedded=True).endswith("; what happened: runs/x/log.txt")


def test_a_folder_with_a_space_can_be_typed_as_it_is_told():
    folder = trained(Path("my runs/x"), resolved(), 10)
    line = last_line.text(75, folder, embedded=True)
    assert shlex.split(line.partition("resume ")[2]) == ["my runs/x"]
