"""Worlds of one and two processes, kept for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.pool import Pool


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.close()
