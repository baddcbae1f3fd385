"""The shell scripts are valid, refuse unknown arguments, and run the tools of the hooks before a commit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = [".ci/run", ".ci/lowest", ".ci/wheel", "scripts/check", "scripts/readme-command"]


def sh(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *args], cwd=ROOT, capture_output=True, text=True)


def test_every_script_parses():
    assert {script: sh("-n", script).stderr for script in SCRIPTS} == dict.fromkeys(SCRIPTS, "")


def test_the_commands_of_readme_are_found_by_name():
    for name, parts in (
        ("first-run", ["python3 -m venv .venv", "pip install -e .", "--model language:small"]),
        ("tests", ["pip install -e '.[test]'", ".venv/bin/pytest"]),
    ):
        command = sh("scripts/readme-command", name).stdout
        assert [part for part in parts if part not in command] == []
        assert command.count("\n") == 1
        assert command.strip() in (ROOT / "README.md").read_text().splitlines()


def test_an_unknown_command_or_step_is_refused_before_any_runs():
    done = sh("scripts/readme-command", "no-such-command")
    assert (done.returncode, done.stdout) == (2, "") and "no-such-command" in done.stderr
    done = sh("scripts/check", "format", "no-such-step")
    assert (done.returncode, done.stdout) == (2, "")
    assert "allowed: format lint types docs architecture tests" in done.stderr


def test_the_hooks_run_the_tools_of_the_checks():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    entries = [re.sub(" --.*", "", hook["entry"]) for hook in hooks]
    assert entries == ["ruff check", "ruff format", "mypy"]
    checks = (ROOT / "scripts" / "check").read_text()
    assert all(entry in checks for entry in entries)
    assert all(hook["language"] == "system" for hook in hooks)  # the versions of [dev]
