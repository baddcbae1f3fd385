"""What tests of all families do with a task."""

from types import SimpleNamespace

import pytest

from gearshift.engines import deferred_init
from tests.models import tasks


@pytest.fixture
def rank_alone(monkeypatch):
    """Makes a rank of two, alone: what it broadcasts stays as it is."""
    monkeypatch.setattr(deferred_init.dist, "broadcast", lambda *_: None)
    return lambda rank: SimpleNamespace(
        size=2, rank=rank, agree=lambda flags: flags, wait_for_all=lambda: None
    )


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
