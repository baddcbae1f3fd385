"""Options for a shorter run: they exist, and the run does not have them yet."""

from dataclasses import replace

import pytest

from launcher.__main__ import main
from launcher.config import machine
from launcher.run.callbacks import quicker
from tests.launcher.given import LAPTOP, SERVER, resolved


@pytest.fixture(autouse=True)
def laptop(monkeypatch):
    monkeypatch.setattr(machine, "detect_machine", lambda: LAPTOP)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_smaller_size_and_quicker_modes(capsys):
    found = quicker(resolved(model="language:lite"))
    assert found == ["--model language:small", "--mode fast", "--mode lite"]
    for option in found:
        assert main(["--model", "language:lite", *option.split(), "--dry-run"]) == 0


def test_what_is_chosen_already_is_not_offered():
    assert quicker(resolved(model="language:tiny", mode="fast")) == []
    found = quicker(resolved(model="language:lite", mode="fast"))
    assert found == ["--model language:small"]


def test_gpus_that_are_not_in_use(monkeypatch):
    monkeypatch.setattr(machine, "detect_machine", lambda: SERVER)
    one = replace(resolved(mode="fast", machine=replace(SERVER, gpus=1)), nproc=1)
    assert quicker(one) == ["--nproc 4"]
    assert quicker(replace(one, nproc=4)) == []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")  # on other nodes as well
    assert quicker(one) == []
