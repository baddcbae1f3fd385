"""The graph of a forward pass does not hold the weights of layers that are released."""

import weakref

import pytest
import torch
from torch import nn

from engines import activation_offload
from engines.base import Options
from engines.preparation import change_forward
from engines.zero.engine import save_by_reference


def release(parameters):
    """Release the memory of the parameters, as stage 3 does; the indices of those that are free."""
    freed = []
    for index, parameter in enumerate(parameters):
        weakref.finalize(parameter.untyped_storage(), freed.append, index)
        parameter.data = torch.empty(0)
    return freed


@pytest.mark.parametrize("by_reference", [True, False])
def test_released_weights_are_freed_and_read_again_in_the_backward_pass(by_reference):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    parameters = list(model.parameters())
    values = [p.detach().clone() for p in parameters]
    batch = torch.randn(4, 8)
    expected = torch.autograd.grad(model(batch).square().sum(), parameters)
    undo = save_by_reference(model) if by_reference else lambda: None

    loss = model(batch).square().sum()
    freed = release(parameters)
    assert (sorted(freed) == [0, 1, 2]) == by_reference
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    for found, gradient in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        assert torch.equal(found, gradient)

    undo()
    loss = model(batch).square().sum()
    assert sorted(release(parameters)) != [0, 1, 2]


def test_weights_of_blocks_whose_activations_are_offloaded_are_freed_too(monkeypatch):
    monkeypatch.setattr(activation_offload, "SMALLEST", 64)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)))
    parameters = list(model.parameters())
    values = [p.detach().clone() for p in parameters]
    batch = torch.randn(4, 8)
    expected = torch.autograd.grad(model(batch).square().sum(), parameters)
    options = Options(activation_offload=True)
    offload = change_forward(model, list(model), options, torch.device("cpu"))
    save_by_reference(model, offload)
    loss = model(batch).square().sum()
    assert sorted(release(parameters)) == [0, 1, 2, 3, 4, 5]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    found = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
