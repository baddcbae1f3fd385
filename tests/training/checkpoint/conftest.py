"""A world and a saved checkpoint for the tests."""

import shutil

import pytest
import torch

from gearshift.engines.environment import RankInfo
from gearshift.engines.world import ProcessWorld
from tests.training.checkpoint.states import saving, state, whole


@pytest.fixture
def alone():
    return ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory):
    run = tmp_path_factory.mktemp("saved")
    world = ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)
    saver = saving(run, world)
    saver.save(20, state(whole()), {"samples": 640}, periodic=True, score=None)
    return run / "checkpoints" / "step-00000020"


@pytest.fixture
def saved(tmp_path, saved_once):
    """The folder of a checkpoint of step 20, which a test may change."""
    return shutil.copytree(saved_once, tmp_path / "checkpoints" / saved_once.name)
