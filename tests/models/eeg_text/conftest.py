import pytest

from tests.models.tasks import maker


@pytest.fixture(scope="session")
def make_task():
    """A task that is not set up yet, of the small set."""
    model = {"tokenizer": "bytes", "dropout": 0.0, "word_dropout": 0.0}
    data = {"path": "embedded:reading-small", "seq_len": 480, "text_len": 40}
    return maker("eeg_text", 0.15, **model, **data)


@pytest.fixture(scope="session")
def text_task(make_task):
    """The small set, with EEG to text as the task."""
    task = make_task()
    task.setup()
    return task


@pytest.fixture(scope="session")
def masked_task(make_task):
    """The small set without its text."""
    task = make_task(stage="encoder")
    task.setup()
    return task
