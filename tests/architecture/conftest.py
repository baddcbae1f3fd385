"""The checkout, parsed once, and small faulty trees that each check must find fault with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.source import Tree, read

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def house() -> Tree:
    """This checkout."""
    return read(ROOT)


@pytest.fixture
def built(tmp_path: Path) -> Callable[[dict[str, str]], Tree]:
    """A tree made of the given files."""

    def build(files: dict[str, str]) -> Tree:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return read(tmp_path)

    return build
