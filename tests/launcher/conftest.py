"""Fixtures shared by the tests of the launcher."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def search_path(monkeypatch):
    """A search path of Python that is restored."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def said(capsys):
    """Runs a command: its output, with --json the object, and its errors if it ends with `code`."""

    def run(*words, code=0):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        if "--json" in words:
            return json.loads(printed.out)
        return printed.err if code else printed.out

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A saved run without its data, trained once; nothing may change it."""
    import torch

    from tests.launcher.saved_runs import train

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(tmp_path_factory.mktemp("trained"))
    torch.set_num_threads(before)
    (run.parent / "mine.jsonl").unlink()
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the saved run, which a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "copy", symlinks=True))
