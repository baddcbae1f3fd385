"""What tests of all families do with a task."""

import pytest

from tests.models import tasks


@pytest.fixture
def ready_task(make_task):
    """A task of `make_task` that is set up."""

    def make(*args, **settings):
        task = make_task(*args, **settings)
        task.setup()
        return task

    return make


@pytest.fixture(scope="session")
def batch_of():
    """The first samples of a split as a batch."""
    return tasks.batch_of


@pytest.fixture(scope="session")
def counts_of():
    """The metric, and its counts over a whole split, evaluated in batches."""
    return tasks.counts_of


@pytest.fixture(scope="session")
def draws():
    """Draws for `sample`, seeded by a number instead of epoch and index."""
    return tasks.Draws
