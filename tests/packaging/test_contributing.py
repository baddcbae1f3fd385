"""What a contributor runs: the hooks before a commit, and the steps of CONTRIBUTING.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / ".pre-commit-config.yaml"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the hooks and the settings of ruff."""
    if shutil.which("pre-commit") is None or shutil.which("ruff") is None:
        pytest.skip("needs pre-commit and ruff: pip install -e '.[dev]'")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for file in (CONFIG, ROOT / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def run_hook(clone: Path, name: str, file: str) -> int:
    """The exit code of a hook for one file."""
    subprocess.run(["git", "add", "."], cwd=clone, check=True)
    environment = {**os.environ, "PRE_COMMIT_HOME": str(clone / ".git" / "pre-commit")}
    command = ["pre-commit", "run", name, "--files", file]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True).returncode


def test_a_hook_refuses_what_the_checks_refuse(clone):
    for hook, text, code in (
        ("ruff-check", "import os\n", 1),
        ("ruff-check", '"""Names."""\n\nimport os\n\nos.getpid()\n', 0),
        ("ruff-format", "x=1\n", 1),
    ):
        (clone / "new.py").write_text(text)
        assert run_hook(clone, hook, "new.py") == code, (hook, text)


def test_the_hooks_run_the_tools_of_the_checks():
    hooks = [hook for repo in yaml.safe_load(CONFIG.read_text())["repos"] for hook in repo["hooks"]]
    entries = [re.sub(" --.*", "", hook["entry"]) for hook in hooks]
    assert entries == ["ruff check", "ruff format", "mypy"]
    checks = (ROOT / "scripts" / "check").read_text()
    assert all(entry in checks for entry in entries)
    assert all(hook["language"] == "system" for hook in hooks)  # the versions of [dev]
