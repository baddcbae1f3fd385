"""This checkout, parsed once, passes each check of its structure, and its page shows it."""

from __future__ import annotations

import pytest

from scripts.structure import (
    broad_excepts,
    crumbs,
    environment_readers,
    file_cycles,
    folder_cycles,
    long_functions,
    undocumented,
    upward_imports,
)
from scripts.write_docs import written
from tests.architecture.test_files import code_in_init, long_files, missing_module_docstrings, vague_names
from tests.architecture.test_layers import collectives_in_models, foreign_imports, wrong_directions
from tests.architecture.test_refusals import known_engines, trusted_files

MOST_BROAD_EXCEPTS = 5
MOST_ENVIRONMENT_READERS = 5
CHECKS = [
    *(long_files, long_functions, vague_names, missing_module_docstrings, code_in_init),
    *(wrong_directions, foreign_imports, collectives_in_models),
    *(file_cycles, folder_cycles, upward_imports),
    *(trusted_files, known_engines),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_checkout_passes(checkout, check):
    assert check(checkout) == []


def test_every_folder_with_python_files_is_a_package(checkout):
    folders = {m.path.parent for m in checkout.ours}
    assert [f for f in folders if not (checkout.root / f / "__init__.py").exists()] == []


def test_few_short_files_have_a_single_importer(checkout):
    assert len(crumbs(checkout)) <= 20


def test_few_files_catch_everything_or_read_the_environment(checkout):
    assert len(broad_excepts(checkout)) <= MOST_BROAD_EXCEPTS, broad_excepts(checkout)
    readers = environment_readers(checkout)
    assert len(readers) <= MOST_ENVIRONMENT_READERS, readers


def test_engines_document_their_public_names(checkout):
    missing, count = undocumented(checkout, "engines")
    assert len(missing) <= count / 10, missing


def test_the_figures_on_the_page_of_the_architecture_are_those_of_the_checkout(checkout):
    text = (checkout.root / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert text == written(text), "run  python -m scripts.write_docs"
