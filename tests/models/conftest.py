"""What tests of all families do with a task."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.models import tasks


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., Any]:
    """The first samples of a split as a batch."""
    return tasks.batch_of


@pytest.fixture(scope="session")
def counts_of() -> Callable[..., Any]:
    """The metric, and its counts over a whole split, evaluated in batches."""
    return tasks.counts_of


@pytest.fixture(scope="session")
def draws() -> type[tasks.Draws]:
    """Draws for `sample`, seeded by a number instead of epoch and index."""
    return tasks.Draws
