"""The world of two processes of the session."""

import pytest


@pytest.fixture(scope="session")
def two_ranks(worlds):
    return worlds[2]
