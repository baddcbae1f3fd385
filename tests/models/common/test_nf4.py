import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from models.common import initial_weights
from models.common.layers import HasFrozenParts
from models.common.nf4 import Nf4Linear, Quantizer

CPU = torch.device("cpu")
SLOW = pytest.mark.slow


def layer(outputs=24, inputs=70, bias=True):
    torch.manual_seed(1)
    plain = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    return plain, Quantizer(CPU)._in_4_bits(plain)


class Parts(HasFrozenParts):
    """A frozen part, and a trained layer."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(32, 96), nn.LayerNorm(96), nn.Linear(96, 8, bias=False))
        self.head = nn.Linear(8, 2)


@pytest.fixture
def stored(tmp_path):
    """A model with a frozen part in 4 bits, and a file with its state."""
    torch.manual_seed(0)
    model = Parts()
    model.freeze(model.part)
    Quantizer(CPU).quantize_frozen(model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


def test_linear_layers_of_frozen_parts_have_4_bits_and_others_stay(stored):
    model, _ = stored
    rounded = [name for name, module in model.named_modules() if isinstance(module, Nf4Linear)]
    assert rounded == ["part.0", "part.2"]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert not any(module.training for module in model.part.modules())
    assert {"part.0.codes", "part.2.scales", "part.0.bias"} <= model.state_dict().keys()


def test_stored_bits_are_loaded_as_the_weights_they_stand_for(stored):
    model, path = stored
    plain = Parts()
    summary = initial_weights.load("model.start", plain, path, "any")
    assert summary == f"loaded 7/7 tensors from {path}"
    for number in (0, 2):
        weight = model.part[number].weight_in(torch.float32)
        assert torch.equal(plain.part[number].weight, weight)
    assert torch.equal(plain.head.weight, model.head.weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_rounded_weight(dtype, bias):
    plain, rounded = layer(bias=bias)
    inputs = torch.randn(3, 5, 70, dtype=dtype, requires_grad=True)
    again = inputs.detach().clone().requires_grad_()
    output = rounded(inputs)
    weight = rounded.weight_in(dtype)
    expected = F.linear(again, weight, plain.bias.to(dtype) if bias else None)
    torch.testing.assert_close(output, expected, rtol=0.01 if bias else 0, atol=0.01)
    output.sum().backward()
    expected.sum().backward()
    assert torch.equal(inputs.grad, again.grad)
    assert 0 < (weight.float() - plain.weight).abs().mean() < 0.12 * plain.weight.abs().mean()


def test_the_backward_pass_keeps_the_bits_and_no_weight():
    _, rounded = layer(256, 1024)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        rounded(torch.randn(2, 1024, requires_grad=True))
    assert sum(x.nbytes for x in kept) < rounded.quantized_elements
    bits = 8 * sum(x.nbytes for x in rounded.buffers() if x is not rounded.constants)
    # A code of 4 bits, and 8 bits of a scale for 64 weights; then the fp32 scales of 256 of them.
    assert bits == rounded.quantized_elements * (4 + 8 / 64)
    assert rounded.constants.nbytes == 4 * (256 + 1 + 256 * 1024 // 64 // 256)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=SLOW)])
def test_the_layer_is_compiled_as_one_graph(backend):
    _, rounded = layer()
    compiled = torch.compile(rounded, backend=backend, fullgraph=True)
    inputs, again = (torch.ones(4, 70, requires_grad=True) for _ in range(2))
    compiled(inputs).sum().backward()
    rounded(again).sum().backward()
    assert torch.equal(inputs.grad, again.grad)
