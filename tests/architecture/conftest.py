"""The checkout, parsed once, and small invalid trees that each check must reject."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.source import Tree, read

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def checkout() -> Tree:
    """This checkout, parsed."""
    return read(ROOT)


@pytest.fixture
def built(tmp_path: Path) -> Callable[[dict[str, str]], Tree]:
    """A function that parses a tree of the given files."""

    def build(files: dict[str, str]) -> Tree:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return read(tmp_path)

    return build
