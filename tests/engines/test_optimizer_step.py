"""Averages, norms and factors are those of torch's own functions."""

import pytest
import torch

from gearshift.engines.optimizer_step import average, clip_factor, global_norm, scale
from gearshift.engines.world import open_world


@pytest.mark.parametrize("clip_norm", [0.1, 1e6])
def test_scaled_gradients_are_those_that_torch_clips(clip_norm):
    world = open_world("cpu", 5.0, always_group=False)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (7,), (0, 2))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    mine = [parameter.grad.clone() for parameter in parameters]
    norm = global_norm(mine, world, replicas=None)
    scale(mine, clip_factor(norm, clip_norm))
    assert norm == torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    for own, parameter in zip(mine, parameters, strict=True):
        assert torch.equal(own, parameter.grad)
    assert global_norm([], world, replicas=None) == 0.0
    scale([], torch.tensor(0.5))


VALUES = torch.tensor([3.0, 4.0, 12.0, 84.0])
"""Of norm 85."""


def norm_of(world, replicas, whole):
    """Each rank holds one half of the values, or with two replicas all of them."""
    held = VALUES if replicas == 2 else VALUES.chunk(2)[world.rank]
    return global_norm([held], world, replicas, [torch.tensor([whole])] if whole else []).item()


@pytest.mark.parametrize(
    ("replicas", "whole", "norm"), [(1, 0.0, 85.0), (2, 0.0, 85.0), (1, 132.0, 157.0)]
)
def test_the_norm_is_that_of_all_shards_each_counted_once(worlds, replicas, whole, norm):
    assert worlds[2].run(norm_of, replicas, whole) == [pytest.approx(norm, rel=1e-6)] * 2


def average_uneven(world):
    """Used by both, by rank 1 only, by none; and one of another type."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters.append(torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    used = (0, 3) if world.rank == 0 else (0, 1, 3)
    for index in used:
        parameters[index].grad = torch.full_like(parameters[index], 1.0 + 2 * world.rank)
    average(parameters, world)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def test_an_unused_gradient_counts_as_zero_and_one_unused_on_all_ranks_stays_none(worlds):
    mean = [[2.0, 2.0], [1.5, 1.5], None, [2.0, 2.0]]
    assert worlds[2].run(average_uneven) == [mean, mean]
