"""The wheel and the source archive have all files, and no others; .ci/wheel uses both outside the clone."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from scripts.structure import PACKAGES

ROOT = Path(__file__).parents[2]
PAGES = ("docs", "mkdocs.yml", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "LICENSE")
BUILD = ("pyproject.toml", ".gitignore")


def built(kind: str, folder: Path) -> Path:
    """The archive, `wheel` or `sdist`, of this checkout, made without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("gearshift-*"))


def listed(*paths: str) -> set[str]:
    """The files below some paths of this checkout, as git knows them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a git checkout to know its files")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_has_every_file_of_the_packages_the_console_script_and_the_licence(tmp_path):
    archive = zipfile.ZipFile(built("wheel", tmp_path))
    names = archive.namelist()
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == listed(*PACKAGES) >= {f"{package}/py.typed" for package in PACKAGES}
    assert any(name.startswith("ds_configs/deepspeed/") for name in shipped)
    (info,) = {name.split("/")[0] for name in names} - {*PACKAGES}
    script = archive.read(f"{info}/entry_points.txt").decode()
    assert "gearshift = gearshift.launcher.__main__:program" in script
    assert f"{info}/licenses/LICENSE" in names
    lines = archive.read(f"{info}/METADATA").decode().splitlines()
    needs = [n.removeprefix("Requires-Dist: ") for n in lines if n.startswith("Requires-Dist: ")]
    assert [n for n in needs if ">=" not in n and "extra ==" not in n] == []
    assert "torch<2.16,>=2.6" in needs


def test_the_source_archive_has_the_packages_the_pages_and_no_tests(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert found == listed(*PACKAGES, *PAGES, *BUILD) | {"PKG-INFO"}


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = metadata.metadata("gearshift")
    assert citation["version"] == project["Version"]
    assert citation["license"] == project["License-Expression"]
    assert citation["abstract"] == project["Summary"]
