"""The hooks before a commit run the tools of the checks."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_hooks_run_the_tools_of_the_checks():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    entries = [re.sub(" --.*", "", hook["entry"]) for hook in hooks]
    assert entries == ["ruff check", "ruff format", "mypy"]
    checks = (ROOT / "scripts" / "check").read_text()
    assert all(entry in checks for entry in entries)
    assert all(hook["language"] == "system" for hook in hooks)  # the versions of [dev]
