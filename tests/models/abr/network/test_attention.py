"""Attention on a CPU equals torch's own."""

import pytest
import torch
from torch.nn import functional as F

from models.abr.layers import plain_attention


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
