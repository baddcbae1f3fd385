"""The source archive builds the same wheel as the clone, and holds nothing else but pages."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.structure import PACKAGES
from tests.packaging.conftest import ROOT, Build

PAGES = ("docs", "mkdocs.yml", "README.md", "CHANGELOG.md", "LICENSE")
BUILD = ("pyproject.toml", ".gitignore")
METADATA = "PKG-INFO"


@pytest.fixture(scope="module")
def sources(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source archive."""
    folder = tmp_path_factory.mktemp("sources")
    with tarfile.open(build("sdist", ROOT)) as archive:
        archive.extractall(folder)
    (found,) = folder.iterdir()
    return found


def test_it_has_the_packages_the_pages_and_no_tests(sources, listed):
    found = {str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file()}
    assert found == listed([*PACKAGES, *PAGES, *BUILD]) | {METADATA}


def test_its_wheel_is_that_of_the_clone(sources, build, wheel):
    ours, theirs = zipfile.ZipFile(wheel), zipfile.ZipFile(build("wheel", sources))
    assert sorted(theirs.namelist()) == sorted(ours.namelist())
    for name in ours.namelist():
        assert theirs.read(name) == ours.read(name), name
