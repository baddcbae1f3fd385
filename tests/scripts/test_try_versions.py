"""Versions that were tried: what works, what fails, what was not run."""

from __future__ import annotations

import subprocess
import sys

from scripts.try_versions import ENGINES, PYTHONS, TORCHES, Row
from tests.packaging.conftest import ROOT

FINE = {"install": None, "command line": None}
ROWS = [
    Row("3.13.0", "2.6.0", "of the system", {**FINE, **dict.fromkeys(ENGINES), "oss": "no oss"}),
    Row("3.9.1", "2.6.0", None, FINE),
    Row("3.12.0", "2.6.0", "built for CPUs", {"install": "ERROR: no match"}),
]


def test_the_oldest_and_the_newest_supported_versions_are_tried():
    text = (ROOT / "pyproject.toml").read_text()
    oldest, newest = (PYTHONS[0], PYTHONS[-1])
    assert f'requires-python = ">={oldest},<3.{int(newest[2:]) + 1}"' in text
    old, new = (torch.split(".")[:2] for torch in TORCHES)
    assert f'"torch>={".".join(old)},<2.{int(new[1]) + 1}"' in text


def test_the_script_needs_no_installed_package():
    """A Python of another system runs it, to try the torch that is installed there."""
    command = [sys.executable, "-S", "-c", "import scripts.try_versions"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr
