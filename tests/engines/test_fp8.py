"""Linear layers that multiply in 8 bits."""

import copy

import pytest
import torch
from torch import nn

from gearshift.engines.base import EngineError
from gearshift.engines.fp8 import linears_in_fp8
from gearshift.engines.precision import check_precision

INPUTS, OUTPUTS = 64, 32


def error(found, exact):
    """The root mean square of the difference, relative to the exact values."""
    return ((found.float() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize(("rows", "bias"), [(1, True), (16, False), (21, True)])
def test_outputs_and_gradients_are_rounded_to_8_bits(rows, bias):
    torch.manual_seed(0)
    exact = nn.Linear(INPUTS, OUTPUTS, bias=bias)
    layer = copy.deepcopy(exact)
    linears_in_fp8([layer])
    inputs = [torch.randn(2, rows, INPUTS, requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    outputs = [exact(inputs[0]), layer(inputs[1])]
    assert outputs[1].dtype == torch.bfloat16 and outputs[1].shape == outputs[0].shape
    target = torch.randn_like(outputs[0])
    for output in outputs:
        (output * target).sum().backward()
    # Half a unit of 3 bits of mantissa is up to 1/16; of 2 bits, as in gradients, up to 1/8.
    assert 0.01 < error(outputs[1], outputs[0]) < 0.06
    for mine, theirs in [(inputs[1], inputs[0]), (layer.weight, exact.weight)]:
        assert mine.grad.dtype == torch.float32
        assert 0.02 < error(mine.grad, theirs.grad) < 0.12
    if bias:
        assert error(layer.bias.grad, exact.bias.grad) < 0.01

    other = copy.deepcopy(layer)  # multiplies with its own weights
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not other(torch.ones(1, INPUTS)).any() and layer(torch.ones(1, INPUTS)).any()


def test_values_of_any_size_keep_their_precision():
    layer = nn.Linear(INPUTS, OUTPUTS, bias=False)
    linears_in_fp8([layer])
    inputs = torch.randn(16, INPUTS)
    plain = layer(inputs)
    for factor in (2.0**-40, 2.0**40):
        assert torch.equal(layer(inputs * factor), plain * factor)
    assert not layer(torch.zeros(16, INPUTS)).any()
    assert not torch.isfinite(layer(inputs.index_fill(0, torch.tensor([3]), torch.nan))).any()


def test_layers_that_the_kernels_cannot_multiply_stay():
    block = nn.Sequential(nn.Linear(INPUTS, 7), nn.Linear(7, INPUTS), nn.Linear(INPUTS, OUTPUTS))
    names = list(block.state_dict())
    linears_in_fp8([block])
    assert block[0](torch.randn(2, INPUTS)).dtype == torch.float32
    assert block[2](torch.randn(2, INPUTS)).dtype == torch.bfloat16
    assert list(block.state_dict()) == names
    with pytest.raises(EngineError, match="multiples of 16; this model has none; use bf16"):
        linears_in_fp8([nn.Conv2d(16, 16, 3), nn.Linear(16, 7)])


@pytest.mark.parametrize(
    ("capability", "allowed"), [((8, 6), "fp32, fp16, tf32, bf16"), ((7, 5), "fp32, fp16")]
)
def test_a_gpu_without_it_is_an_error(monkeypatch, capability, allowed):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "a GPU")
    with pytest.raises(EngineError) as error:
        check_precision("fp8", torch.device("cuda"))
    text = f"needs a GPU of compute capability 8.9 or newer; a GPU has {capability[0]}."
    assert text in str(error.value) and str(error.value).endswith(f"allowed: {allowed}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 9))
    check_precision("fp8", torch.device("cuda"))
