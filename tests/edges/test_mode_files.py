"""A file of the user is a mode for run, explain and compare: changes, promises and a base mode."""

import json
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.cli.parser import read
from launcher.compare import candidates
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve
from tests.launcher.given import LAPTOP, resolved

GENTLE = """\
sentence: half the learning rate
promise:
  peak_memory: {at_most: 1.5}
log:
  every: 7
optim:
  lr: {scale: 0.5}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gentle.yaml").write_text(GENTLE)
    return tmp_path


def of_mode(mode, *sets):
    return resolve(CliArgs(model="language:tiny", mode=mode, sets=sets), LAPTOP)


def test_a_mode_file_changes_the_defaults_of_the_model_and_may_build_on_another_mode():
    found, default = of_mode("gentle.yaml"), resolved()
    assert found.settings.optim.lr == default.settings.optim.lr / 2
    assert found.settings.log.every == 7
    assert (found.settings.mode, found.promises) == ("default", {"peak_memory": {"at_most": 1.5}})
    assert found.values["log.every"].origin.where == "gentle.yaml:5"
    assert of_mode("gentle.yaml", "log.every=3").settings.log.every == 3
    Path("gentle.yaml").write_text(f"mode: fast\n{GENTLE}")
    found, fast = of_mode("gentle.yaml"), resolved(mode="fast")
    assert (found.settings.mode, found.settings.schedule) == ("fast", fast.settings.schedule)
    assert found.settings.optim.lr == default.settings.optim.lr / 2
    assert {**fast.promises, "peak_memory": {"at_most": 1.5}} == found.promises


def test_compare_takes_a_mode_file_by_its_name(capsys):
    argv = ["compare", "--model", "language:tiny", "--modes", "default,gentle.yaml"]
    comparison = candidates.decide(read([*argv, "--steps", "4"]))
    assert [item.mode for item in comparison.candidates] == ["default", "gentle"]
    assert comparison.candidates[1].promised()[0] == {"peak_memory": {"at_most": 1.5}}
    folder = comparison.run_folder(1, comparison.rounds[0])
    assert folder == comparison.folder / "runs/gentle-local-1"
    assert main([*argv, "--steps", "4", "--dry-run", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert main([*runs[1]["arguments"], "--dry-run"]) == 0
    assert "gentle.yaml:2 (mode)" in capsys.readouterr().out
