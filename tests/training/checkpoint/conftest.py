"""A world and a saved checkpoint for the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.environment import RankInfo
from engines.world import ProcessWorld
from tests.training.checkpoint.states import state, whole
from training.checkpoint.retention import Keep
from training.checkpoint.writer import CheckpointWriter
from training.storage import Storage


@pytest.fixture
def alone() -> ProcessWorld:
    return ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)


@pytest.fixture
def saved(tmp_path: Path, alone: ProcessWorld) -> Path:
    """The folder of a checkpoint of step 20."""
    saver = CheckpointWriter(
        Storage(tmp_path), alone, "local", Keep(2, 1, None), in_background=False
    )
    saver.save(20, state(whole()), {"samples": 640}, periodic=True, score=None)
    folder = saver.wait()
    assert folder is not None
    return folder
