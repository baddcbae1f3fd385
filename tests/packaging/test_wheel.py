"""The wheel contains all files of a run, and works outside the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.source import PACKAGES


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own, like an installation."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(wheel, listed):
    shipped = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert shipped == listed(PACKAGES)


def test_data_files_are_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for pattern in ("ds_configs/modes/", "ds_configs/models/", "ds_configs/deepspeed/"):
        assert any(name.startswith(pattern) for name in names), pattern


def test_every_package_says_that_it_is_typed(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert [package for package in PACKAGES if f"{package}/py.typed" not in names] == []


def test_the_console_script_and_the_licence_are_in_the_wheel(wheel):
    archive = zipfile.ZipFile(wheel)
    info = next(n.split("/")[0] for n in archive.namelist() if ".dist-info/" in n)
    script = archive.read(f"{info}/entry_points.txt").decode()
    assert "gearshift = launcher.__main__:program" in script
    assert f"{info}/licenses/LICENSE" in archive.namelist()


@pytest.mark.parametrize("args", [["list", "models"], ["explain", "optim.lr"], ["run", "--help"]])
def test_an_installed_copy_works_beside_packages_of_the_same_names(installed, tmp_path, args):
    for name in ("models", "training", "engines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    done = subprocess.run(
        [sys.executable, "-m", "launcher", *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not ours" not in done.stdout + done.stderr


def test_every_dependency_has_a_minimum_version(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    needs = [n.removeprefix("Requires-Dist: ") for n in lines if n.startswith("Requires-Dist: ")]
    assert [n for n in needs if ">=" not in n and "extra ==" not in n] == []
    assert "torch<2.14,>=2.6" in needs
