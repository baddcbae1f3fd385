"""The norm that clips gradients is that of all shards, each counted once."""

import pytest
import torch

from engines.optimizer_step import global_norm

VALUES = torch.tensor([3.0, 4.0, 12.0, 84.0])
"""Of norm 85; the first two of norm 5."""


def norm_of(world, replicas, whole):
    """Each rank holds one half of the values, or with two replicas all of them."""
    held = VALUES if replicas == 2 else VALUES.chunk(2)[world.rank]
    found = global_norm([held], world, replicas, [torch.tensor([whole])] if whole else [])
    return found.item()


@pytest.mark.parametrize(("replicas", "whole", "norm"), [(1, 0.0, 85.0), (2, 0.0, 85.0), (1, 132.0, 157.0)])
def test_shards_are_joined_over_ranks(worlds, replicas, whole, norm):
    assert worlds[2].run(norm_of, replicas, whole) == [pytest.approx(norm, rel=1e-6)] * 2
