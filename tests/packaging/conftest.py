"""The archives of this checkout, built once without a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Build = Callable[[str, Path], Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function that builds an archive, `wheel` or `sdist`, of the sources in a folder."""

    def archive(kind: str, source: Path) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        return next(folder.glob("gearshift-*"))

    return archive


@pytest.fixture(scope="session")
def wheel(build: Build) -> Path:
    """The wheel of this checkout."""
    return build("wheel", ROOT)


@pytest.fixture(scope="session")
def listed() -> Callable[[Sequence[str]], set[str]]:
    """A function that lists the files below some paths of this checkout, as git knows them."""

    def files(paths: Sequence[str]) -> set[str]:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            pytest.skip("needs a git checkout to know its files")
        return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}

    return files
