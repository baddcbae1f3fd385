"""The tables of README and docs say what the catalogues say."""

from __future__ import annotations

import pytest

from scripts.tables import TABLE, TABLES, written
from tests.docs.pages import PATHS, read


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_tables_equal_the_catalogues(path):
    text = read(path).text
    assert text == written(text), "run  python -m scripts.tables"


def test_every_table_stands_somewhere():
    named = {match["name"] for path in PATHS for match in TABLE.finditer(read(path).text)}
    assert named == set(TABLES)


def test_a_table_that_differs_is_found():
    page = "<!-- table: engines -->\n| engine | x |\n|---|---|\n| `warp` | faster |\n\nText.\n"
    new = written(page)
    assert "`warp`" not in new
    assert "`zero3-offload`" in new
    assert new.endswith("\n\nText.\n")
    assert written(new) == new
