"""What the tests of lines to paste share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.edges.pasting import Case, check


@pytest.fixture
def pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[[Case], int]:
    """Provoke a fix in an empty folder, and run each of its lines; gives their number."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(case: Case) -> int:
        for name, value in case.variables.items():
            monkeypatch.setenv(name, value)
        return check(case, here, lambda: "".join(capfd.readouterr()))

    return run
