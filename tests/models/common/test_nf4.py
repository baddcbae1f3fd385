import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gearshift.models.common.nf4 import Quantizer, weight_of

CPU = torch.device("cpu")
SLOW = pytest.mark.slow


def layer(outputs=24, inputs=70, bias=True):
    torch.manual_seed(1)
    plain = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    return plain, Quantizer(CPU)._in_4_bits(plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_rounded_weight(dtype, bias):
    plain, rounded = layer(bias=bias)
    inputs = torch.randn(3, 5, 70, dtype=dtype, requires_grad=True)
    again = inputs.detach().clone().requires_grad_()
    output = rounded(inputs)
    weight = weight_of(rounded.shape, dtype, *rounded.buffers())
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
