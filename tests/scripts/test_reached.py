"""Continuous integration fails if a collected test was not reached."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REACHED = Path(__file__).parents[2] / ".ci" / "reached"
TESTS = """\
import pytest

@pytest.mark.parametrize("text", ["a::b", "c[d].py", "\\x00 é"])
def test_values(text):
    assert text != "a::b"

class TestGroup:
    def test_skipped(self):
        pytest.skip("needs more")
"""


@pytest.fixture
def run_pytest(tmp_path):
    """Runs pytest in a folder with a file of four tests; what it prints."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "test_of_four.py").write_text(TESTS)
    (tmp_path / "pytest.ini").touch()
    # Plugins take most of the time.
    plain = {**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    line = [sys.executable, "-m", "pytest", "-q"]
    return lambda *args: (
        subprocess.run(
            [*line, *args], cwd=tmp_path, env=plain, capture_output=True, text=True
        ).stdout
    )


def test_a_test_without_an_outcome_is_named_and_fails(run_pytest, tmp_path):
    (tmp_path / "collected").write_text(run_pytest("--collect-only"))
    run_pytest("--junitxml=values", "--deselect=part/test_of_four.py::TestGroup")
    run_pytest("--junitxml=group", "-k", "skipped")
    for reports, reached in ((["values"], 3), (["values", "group"], 4), (["missing"], 0)):
        line = [sys.executable, str(REACHED), "slow", "collected", *reports]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        first, *missed = done.stdout.splitlines()
        assert first == f"slow: {reached} of 4 tests reached", done.stderr
        assert len(missed) == 4 - reached and done.returncode == (reached < 4)
        assert ("part/test_of_four.py::TestGroup::test_skipped" in done.stdout) == (reached < 4)


def test_nothing_collected_fails(tmp_path):
    (tmp_path / "collected").write_text("ERROR collecting part/test_of_four.py\n")
    line = [sys.executable, str(REACHED), "fast", "collected"]
    assert subprocess.run(line, cwd=tmp_path, capture_output=True).returncode == 1
