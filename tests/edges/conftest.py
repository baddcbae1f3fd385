"""What the tests of lines to paste share."""

import io

import pytest

from tests.edges.pasting import check


@pytest.fixture
def pasted(tmp_path, monkeypatch, capfd):
    """Provoke a fix in an empty folder, and run each of its lines; gives their number."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(case):
        for name, value in case.variables.items():
            monkeypatch.setenv(name, value)
        return check(case, here, lambda: "".join(capfd.readouterr()))

    return run
