"""The graph of a forward pass does not hold the weights of layers that are released."""

import weakref

import pytest
import torch
from torch import nn

from gearshift.engines import activation_offload
from gearshift.engines.base import Options
from gearshift.engines.preparation import change_forward
from gearshift.engines.zero.engine import save_by_reference


def release(parameters):
    """Release the memory of the parameters, as stage 3 does; the indices of those that are free."""
    freed = []
    for index, parameter in enumerate(parameters):
        weakref.finalize(parameter.untyped_storage(), freed.append, index)
        parameter.data = torch.empty(0)
    return sorted(freed)


@pytest.mark.parametrize("offloads", [False, True])
def test_released_weights_are_freed_and_read_again_in_the_backward_pass(monkeypatch, offloads):
    """Also those of blocks whose activations are offloaded."""
    monkeypatch.setattr(activation_offload, "SMALLEST", 64)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)))
    parameters, batch = list(model.parameters()), torch.randn(4, 8)
    values, everything = [p.detach().clone() for p in parameters], list(range(len(parameters)))
    expected = torch.autograd.grad(model(batch).square().sum(), parameters)
    options, cpu = Options(activation_offload=offloads), torch.device("cpu")
    undo = save_by_reference(model, change_forward(model, list(model), options, cpu))

    loss = model(batch).square().sum()
    assert release(parameters) == everything
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    for found, gradient in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        assert torch.equal(found, gradient)

    if not offloads:
        undo()
        loss = model(batch).square().sum()
        assert release(parameters) != everything
