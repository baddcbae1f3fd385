"""A replay that has nothing to compare is an error, and never identical."""

import pytest

from gearshift.engines.base import State
from gearshift.launcher.saved_runs.verify import Interval, compare_replay
from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.reader import open_checkpoint
from tests.training.checkpoint.states import saving
from tests.training.tiny import one_rank

NOTHING = State(shapes={}, pieces=[], buffers={}, steps={}, groups=[], loss_scale={})


def test_checkpoints_without_a_tensor_are_not_identical(tmp_path):
    world = one_rank()
    for name in ("run", "replay"):
        (tmp_path / name).mkdir()
        saving(tmp_path / name, world).save(4, NOTHING, {"samples": 8}, periodic=True, score=None)
    last = open_checkpoint(tmp_path / "run/checkpoints/step-00000004")
    interval = Interval(None, 0, 4)
    with pytest.raises(CheckpointError, match="nothing was compared"):
        compare_replay(interval, tmp_path / "run", last, tmp_path / "replay", [])
