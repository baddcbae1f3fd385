"""A save copies the state of a GPU into pinned host memory."""

import pytest
import torch

from gearshift.engines.base import Piece
from gearshift.engines.environment import RankInfo
from gearshift.engines.world import ProcessWorld
from gearshift.training.checkpoint.writer import HostCopy

pytestmark = pytest.mark.gpu


def test_a_copy_is_in_pinned_memory_and_equal():
    device = torch.device("cuda", 0)
    intervals = [
        Piece("weight", name, 0, torch.randn(size, device=device))
        for name, size in (("w", 2**20), ("b", 7))
    ]
    copy = HostCopy(ProcessWorld(RankInfo(), device, 0.0))
    taken = copy.take(intervals)
    for mine, theirs in zip(taken, intervals, strict=True):
        assert mine.data.device.type == "cpu" and mine.data.is_pinned()
        assert torch.equal(mine.data, theirs.data.cpu())


def test_a_released_copy_leaves_no_error_to_the_next_kernel():
    device = torch.device("cuda", 0)
    for _ in range(3):
        copy = HostCopy(ProcessWorld(RankInfo(), device, 0.0))
        assert copy.take([Piece("weight", "w", 0, torch.ones(2**18))])
        del copy
        torch.ones(1, device=device).add_(1)
        torch.cuda.synchronize()
