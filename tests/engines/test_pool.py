"""The shared rank processes of the tests report a failing rank at once."""

import os

import pytest
import torch

from tests.engines.pool import RankFailed


def whoami(world):
    return world.rank, world.size


def fail_on(world, rank):
    if world.rank == rank:
        raise ValueError("of its own making")
    world.sum(torch.zeros(1))


def leave_on(world, rank):
    if world.rank == rank:
        os._exit(3)
    world.sum(torch.zeros(1))


def test_a_failing_rank_is_named_and_the_next_call_gets_a_new_world(worlds):
    assert worlds[2].run(whoami) == [(0, 2), (1, 2)]
    with pytest.raises(RankFailed, match=r"(?s)rank 1.*ValueError: of its own making"):
        worlds[2].run(fail_on, 1)
    with pytest.raises(RankFailed, match="rank"):
        worlds[2].run(leave_on, 0)
