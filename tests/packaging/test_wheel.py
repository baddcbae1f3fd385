"""The wheel contains all files of a run, and works outside the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts.structure import PACKAGES


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own, like an installation."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_it_has_every_file_of_the_packages_the_console_script_and_the_licence(wheel, listed):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == listed(PACKAGES)
    assert shipped >= {f"{package}/py.typed" for package in PACKAGES}
    assert any(name.startswith("ds_configs/deepspeed/") for name in shipped)
    (info,) = {name.split("/")[0] for name in names} - {*PACKAGES}
    script = archive.read(f"{info}/entry_points.txt").decode()
    assert "gearshift = launcher.__main__:program" in script
    assert f"{info}/licenses/LICENSE" in names
    lines = archive.read(f"{info}/METADATA").decode().splitlines()
    needs = [n.removeprefix("Requires-Dist: ") for n in lines if n.startswith("Requires-Dist: ")]
    assert [n for n in needs if ">=" not in n and "extra ==" not in n] == []
    assert "torch<2.16,>=2.6" in needs


def test_an_installed_copy_works_beside_packages_of_the_same_names(installed, tmp_path):
    for name in ("models", "training", "engines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')\n")
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "explain", "optim.lr"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "not ours" not in done.stdout + done.stderr, done.stderr
