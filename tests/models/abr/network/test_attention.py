"""Attention on a CPU equals torch's own."""

import pytest
import torch
from torch.nn import functional as F

from models.abr.layers import SequenceAttention, plain_attention


def tensors():
    """Query, key, value and added scores, float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 7, 8), (2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 7, 5))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.parametrize("is_relative", [False, True])
def test_plain_attention_has_the_values_and_gradients_of_torch(is_relative):
    found = []
    for attention in (plain_attention, F.scaled_dot_product_attention):
        query, key, value, added = tensors()
        mixed = attention(query, key, value, added if is_relative else None)
        mixed.square().sum().backward()
        given = [query, key, value, *([added] if is_relative else [])]
        found.append([mixed, *(tensor.grad for tensor in given)])
    for ours, theirs in zip(*found, strict=True):
        # Both are float64 and sum in different orders.
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_an_attention_without_a_named_kernel_agrees_with_the_one_of_torch(precision):
    torch.manual_seed(0)
    x, positions = torch.randn(2, 40, 16), torch.randn(65, 16)
    plain = SequenceAttention(16, 2, "auto", bias=True)
    named = SequenceAttention(16, 2, "math", bias=True)
    named.load_state_dict(plain.state_dict())
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = [layer(x, x, positions).float() for layer in (plain, named)]
    # bf16 has eight bits of mantissa.
    torch.testing.assert_close(*found, rtol=0, atol=1e-5 if precision == torch.float32 else 0.03)
