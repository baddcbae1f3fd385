"""The checkout, parsed once, and small invalid trees that each check must reject."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.structure import Tree, read
from scripts.write_docs import _read as read_once

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def checkout() -> Tree:
    """This checkout, as the generated parts of the docs have parsed it."""
    gc.disable()  # nothing of it is garbage, and searching it takes longer than reading it
    tree = read_once(ROOT)
    gc.freeze()
    gc.enable()
    return tree


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
