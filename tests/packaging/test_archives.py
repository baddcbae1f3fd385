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
PAGES = (
    "docs",
    "mkdocs.yml",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "SECURITY.md",
    "LICENSE",
)
BUILD = ("pyproject.toml", ".gitignore")
SOURCE = ("src/gearshift/__init__.py", "src/gearshift/__main__.py", "src/gearshift/py.typed")
PROGRAM = ("src/launcher/__init__.py", "src/launcher/__main__.py")
"""Links to files of launcher/, so that `python -m launcher` works."""


def built(kind: str, folder: Path, root: Path = ROOT) -> Path:
    """The archive, `wheel` or `sdist`, of a checkout, made without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return max(folder.glob("gearshift-*"), key=lambda path: path.stat().st_mtime_ns)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def source() -> set[str]:
    """The files below src/gearshift with those that its links lead to."""
    return {f"src/gearshift/{name}" for name in listed(*PACKAGES)} | listed(*SOURCE)


def listed(*paths: str) -> set[str]:
    """The files below some paths of this checkout, as git knows them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a git checkout to know its files")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


TOP = {
    *(".ci", ".dockerignore", ".gitignore", ".pre-commit-config.yaml", "AGENTS.md", "CHANGELOG.md"),
    *("CITATION.cff", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "README.md", "SECURITY.md"),
    *("benchmarks", "docs", "ds_configs", "engines", "launcher", "mkdocs.yml", "models"),
    *("pyproject.toml", "scripts", "slurm", "src", "tests", "training"),
}


def test_the_top_of_the_tree_has_nothing_that_was_left_there():
    assert {name.split("/")[0] for name in listed()} == TOP


def test_the_wheel_has_every_file_of_the_packages_the_console_script_and_the_licence(tmp_path):
    archive = zipfile.ZipFile(built("wheel", tmp_path))
    names = archive.namelist()
    shipped = {f"src/{name}" for name in names if ".dist-info/" not in name}
    assert shipped == source() | listed(*PROGRAM) > {*SOURCE}
    assert any(name.startswith("src/gearshift/ds_configs/deepspeed/") for name in shipped)
    assert archive.read("launcher/__main__.py") == archive.read("gearshift/launcher/__main__.py")
    (info,) = {name.split("/")[0] for name in names} - {"gearshift", "launcher"}
    script = archive.read(f"{info}/entry_points.txt").decode()
    assert "gearshift = gearshift.__main__:program" in script
    assert f"{info}/licenses/LICENSE" in names
    lines = archive.read(f"{info}/METADATA").decode().splitlines()
    needs = [n.removeprefix("Requires-Dist: ") for n in lines if n.startswith("Requires-Dist: ")]
    assert [n for n in needs if ">=" not in n and "extra ==" not in n] == []
    assert "torch<2.16,>=2.9" in needs


def test_the_source_archive_has_the_packages_the_pages_and_no_tests(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert found == source() | listed(*PAGES, *BUILD) | {"PKG-INFO"}


def test_the_source_archive_builds_the_same_wheel(tmp_path):
    with tarfile.open(built("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    here, there = (contents(built("wheel", unpacked / "dist", root)) for root in (ROOT, unpacked))
    assert here == there


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = metadata.metadata("gearshift")
    assert citation["version"] == project["Version"]
    assert citation["license"] == project["License-Expression"]
    assert citation["abstract"] == project["Summary"]
