"""A world and a saved checkpoint for the tests."""

import shutil

import pytest

from tests.training.checkpoint.states import saving, state, whole
from tests.training.tiny import one_rank


@pytest.fixture
def alone():
    return one_rank()


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory):
    run = tmp_path_factory.mktemp("saved")
    saver = saving(run, one_rank())
    saver.save(20, state(whole()), {"samples": 640}, periodic=True, score=None)
    return run / "checkpoints" / "step-00000020"


@pytest.fixture
def saved(tmp_path, saved_once):
    """The folder of a checkpoint of step 20, which a test may change."""
    return shutil.copytree(saved_once, tmp_path / "checkpoints" / saved_once.name)
