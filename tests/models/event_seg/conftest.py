import pytest

from tests.models.tasks import maker


@pytest.fixture
def make_task():
    """A task that is not set up yet."""
    return maker("event_seg", 0.2)
