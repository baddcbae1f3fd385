"""The world of two processes of the session."""

import pytest

from tests.engines.pool import Pool


@pytest.fixture(scope="session")
def two_ranks(worlds: dict[int, Pool]) -> Pool:
    return worlds[2]
