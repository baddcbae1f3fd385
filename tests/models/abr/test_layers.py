import math

import pytest
import torch
from torch.nn import functional as F

from gearshift.models.abr.layers import StateSpace, plain_attention


@pytest.fixture
def layer():
    torch.manual_seed(0)
    space = StateSpace(4, 6, dropout=0.0)
    with torch.no_grad():  # at first many are ones, which would hide a wrong axis
        for parameter in (space.mix, space.b, space.c, space.d, space.a_re):
            parameter.copy_(torch.randn_like(parameter))
    return space


def term(layer, f, n):
    a = complex(-math.log1p(math.exp(layer.a_re[n])), layer.a_im[n])
    return layer.mix[n].item() * layer.c[f, n].item() * layer.b[n, f].item(), a


def test_the_kernel_is_the_sum_of_the_formula(layer):
    kernel = layer.kernel(13)
    layer.requires_grad_(False)
    for f in range(4):
        dt = math.exp(layer.log_dt[f])
        for at in range(13):
            terms = (term(layer, f, n) for n in range(6))
            powers = ((w, complex(at * dt * a.real, at * dt * a.imag)) for w, a in terms)
            wanted = dt * sum(w * math.exp(p.real) * math.cos(p.imag) for w, p in powers)
            assert kernel[at, f].item() == pytest.approx(wanted, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("time", [1, 7])
def test_half_of_the_channels_are_causal_and_half_anti_causal(layer, time):
    x = torch.randn(2, time, 4, dtype=torch.float64)
    kernel = layer.kernel(time).double()
    wanted = layer.d.double() * x
    for at in range(time):
        for other in range(time):
            back = kernel[at - other] if other <= at else torch.zeros(4, dtype=torch.float64)
            ahead = kernel[other - at] if other >= at else torch.zeros(4, dtype=torch.float64)
            wanted[:, at] += torch.cat((back[:2], ahead[2:])) * x[:, other]
    torch.testing.assert_close(layer._mixed(x.float()).double(), wanted, rtol=1e-4, atol=1e-4)


def test_state_spaces_compute_in_full_precision_under_autocast(layer):
    x = torch.randn(1, 9, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    torch.testing.assert_close(mixed, layer(x), rtol=1e-6, atol=1e-6)


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
