"""AdamW with moments of 16 and 8 bits: its steps, its rounding and its codes."""

import math

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode

from gearshift.launcher.base.environment import compiler
from gearshift.training.optim import low_bit
from gearshift.training.optim.low_bit import BLOCK, MOMENTS, Blocks, Blockwise, LowBitAdamW

SHAPES = [(70, 90), (37,), (1200, 1100), (5000,)]
"""One below the size from which moments have fewer bits, one above what is updated at once."""
STATES = pytest.mark.parametrize("state", ["bf16", "int8"])
ADAMW = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1, "fused": True}


def stepped(build, steps=4, shapes=SHAPES):
    """The parameters of `shapes` after some steps, and the optimizer."""
    draw = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    optimizer = build([{"params": parameters}])
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()
    return [p.detach() for p in parameters], optimizer


def low(state, **options):
    return lambda groups: LowBitAdamW(groups, state=state, **ADAMW | options)


def plain(groups):
    return torch.optim.AdamW(groups, **ADAMW)


@STATES
def test_steps_agree_with_those_of_torch(state):
    (found, optimizer), (exact, _) = stepped(low(state)), stepped(plain)
    for mine, theirs in zip(found, exact, strict=True):
        if mine.numel() < 4096:
            assert torch.equal(mine, theirs)
            continue
        apart = (mine - theirs).square().mean().sqrt() / 4e-2  # of four steps
        assert 1e-5 < apart < (0.002 if state == "bf16" else 0.05)
    assert {float(held["step"]) for held in optimizer.state.values()} == {4.0}


@STATES
def test_the_parts_of_a_parameter_do_not_change_its_steps(state, monkeypatch):
    (whole,), _ = stepped(low(state), shapes=[(9000,)])
    monkeypatch.setattr("gearshift.training.optim.low_bit._AT_ONCE", 4 * BLOCK)
    (parts,), _ = stepped(low(state), shapes=[(9000,)])
    if state == "int8":
        assert torch.equal(whole, parts)
    # In bf16 the place of an element in its part decides how it is rounded.
    assert (whole - parts).square().mean().sqrt() < 0.005 * 1e-2


def stepped_with(gradients, state, **options):
    """How far a parameter moved from 0 with each of `gradients`, and the optimizer's state of it."""
    parameter = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = low(state, **options)([{"params": [parameter]}])
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach(), optimizer.state[parameter]


def test_second_moments_in_16_bits_decay_as_those_of_fp32():
    """On average: rounding to the nearest value would keep all, and truncation lose more."""
    steps, beta, elements = 600, 0.999, 4096
    first = torch.randn(elements, generator=torch.Generator().manual_seed(0))
    start = stepped_with([first], "bf16", betas=(0.9, beta))[1]["exp_avg_sq"].double()
    gradients = [first, *[torch.zeros(elements)] * steps]
    decayed = stepped_with(gradients, "bf16", betas=(0.9, beta))[1]["exp_avg_sq"].double()
    found = (decayed / start).mean() / beta**steps
    # A step moves a value to a neighbour, at most 2^-7 away, with the probability that moves the mean
    # by a thousandth: the variances of all steps add up.
    deviation = (steps * (1 - beta) * 2**-7 / elements) ** 0.5
    assert abs(found - 1) < 4 * deviation < 0.01


@pytest.mark.parametrize("sign", [1, -1])
def test_values_are_rounded_to_16_bits_with_their_mean(sign):
    values = sign * torch.linspace(1, 2, 1001)[:-1].square()
    salts = torch.arange(500, dtype=torch.int32) * low_bit._ODD[2]
    rounded = torch.stack([low_bit._rounded(values, salt) for salt in salts]).double()
    apart = (rounded.mean(0) - values) / 2**-6  # in units of the largest values
    assert apart.abs().max() < 4.5 * (0.25 / len(salts)) ** 0.5  # of a thousand
    assert abs(apart.mean()) < 4 * (0.25 / rounded.numel()) ** 0.5


def test_second_moments_of_8_bits_have_no_sign():
    """So all codes are of positive values, and none is 0, whose root would divide."""
    gradient = 10 ** -torch.linspace(0, 4, BLOCK).repeat(16)
    moved, state = stepped_with([gradient] * 3, "int8", weight_decay=0.0)
    # The steps of AdamW for one gradient are the learning rate.
    assert moved.abs().max() < 1.5 * 3 * ADAMW["lr"]
    second = values_of(state["exp_avg_sq"])
    exact = gradient.square() * (1 - ADAMW["betas"][1] ** 3)
    # The largest decade has 128 codes; what is encoded is rounded to bf16, in each step.
    assert (second - exact).abs().max() < exact.max() * (0.9 / 256 + 3 * 2**-9)


@pytest.mark.slow
@STATES
def test_a_step_is_compiled_on_a_gpu_or_says_once_that_it_is_not(state, monkeypatch, caplog):
    plain, _ = stepped(low(state))
    calls = []

    def counted(function):
        calls.append(function.__name__)
        return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=True)

    def broken(function):
        raise ImportError("no compiler")

    for way in (counted, broken):
        monkeypatch.setattr(low_bit, "_COMPILED_ON", {"cpu"})
        monkeypatch.setattr(low_bit, "_compiled", way)
        found, _ = stepped(low(state))
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, plain, strict=True))
    # Three larger parameters, one of them in two parts.
    parts = sum(
        -(-math.prod(shape) // low_bit._AT_ONCE) for shape in SHAPES if math.prod(shape) >= 4096
    )
    assert calls == [f"_step_of_{state}"] * 4 * parts
    assert [r.levelname for r in caplog.records if r.name == low_bit.__name__] == ["WARNING"]


@pytest.mark.slow
@pytest.mark.skipif(compiler("CXX", "c++", "g++", "clang++") is None, reason="no C++ compiler")
@STATES
def test_a_compiled_step_is_one_kernel_with_the_moments_of_one_that_is_not(state, monkeypatch):
    from torch._inductor.utils import run_and_get_code

    shapes = [(64, 256), (3, 5120)]
    plain, reference = stepped(low(state), shapes=shapes)
    monkeypatch.setattr(low_bit, "_COMPILED_ON", {"cpu"})
    torch._dynamo.reset()
    (found, optimizer), codes = run_and_get_code(stepped, low(state), shapes=shapes)
    assert [code.count("cpp_fused") for code in codes] == [2]  # its definition, and its call
    for mine, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
    states = zip(optimizer.state.values(), reference.state.values(), strict=True)
    assert all(
        torch.equal(values_of(a[kind]), values_of(b[kind])) for a, b in states for kind in MOMENTS
    )


def slot(size, is_signed):
    return Blockwise(Blocks(size, is_signed, torch.empty(0)), [size])


def values_of(tensor):
    return torch.empty(tensor.shape).copy_(tensor)


def decades(size):
    draw = torch.Generator().manual_seed(1)
    powers = 10 ** (torch.rand(size, generator=draw) * -14)
    return torch.randn(size, generator=draw) * powers


VALUES = {
    "normal": torch.randn(100_003, generator=torch.Generator().manual_seed(0)),
    "negative": -torch.rand(BLOCK, generator=torch.Generator().manual_seed(0)),
    "decades": decades(100_003),
    "large": torch.randn(1000, generator=torch.Generator().manual_seed(2)) * 1e37,
    "small": torch.randn(1000, generator=torch.Generator().manual_seed(2)) * 1e-29,
    "subnormal": torch.randn(1000, generator=torch.Generator().manual_seed(2)) * 1e-41,
    "zeros": torch.zeros(1000),
    "one": torch.tensor([-3.0]),
    "one after a block": torch.tensor([*[0.0] * BLOCK, -1e-5]),
}


@pytest.mark.parametrize("is_signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("name", VALUES)
def test_decoded_values_are_encoded_to_the_same_ones(name, is_signed):
    values = VALUES[name] if is_signed else VALUES[name].abs()
    first, second = slot(len(values), is_signed), slot(len(values), is_signed)
    first.copy_(values)
    decoded = values_of(first)
    second.copy_(decoded)
    assert torch.equal(values_of(second).view(torch.int32), decoded.view(torch.int32))
    largest = values.abs().max()
    assert (decoded - values).abs().max() <= max(0.01 * largest, 1e-30)


def test_parts_may_be_written_in_any_order():
    values = decades(3000)
    whole, parts = slot(3000, True), slot(3000, True)
    whole.copy_(values)
    decoded = values_of(whole)
    cuts = [0, 5, 300, 775, 776, 2000, 3000]
    for start in (2, 0, 4, 1, 5, 3):
        part = slice(cuts[start], cuts[start + 1])
        parts[part].copy_(decoded[part])
    parts.blocks.incomplete.clear()  # as a step does
    assert torch.equal(values_of(parts), decoded)
    parts[5:300].copy_(torch.ones(295))
    parts.copy_(decoded)
    assert torch.equal(values_of(parts), decoded)


def test_a_step_goes_on_from_a_part_that_was_written():
    parameter = torch.nn.Parameter(torch.zeros(5000))
    optimizer = low("int8")([{"params": [parameter]}])
    parameter.grad = torch.ones(5000)
    optimizer.step()
    optimizer.state[parameter]["exp_avg"][5:300].copy_(torch.zeros(295))
    optimizer.step()
    found = values_of(optimizer.state[parameter]["exp_avg"])
    expected = torch.full((5000,), 0.19)
    expected[5:300] = 0.1
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


def test_codes_are_read_as_a_tensor_of_fp32():
    values = decades(3000).view(30, 100)
    codes = slot(3000, True).view(30, 100)
    codes.copy_(values)
    assert (codes.dtype, codes.shape, codes.numel()) == (torch.float32, (30, 100), 3000)
    flat = values_of(codes).view(-1)
    view = codes.detach().view(-1)
    assert isinstance(view[7:900], Blockwise) and torch.equal(values_of(view[7:900]), flat[7:900])
    assert torch.equal(codes + 1, flat.view(30, 100) + 1)
    assert bytes(view[3:9].view(torch.uint8).numpy()) == bytes(flat[3:9].numpy())


def test_blocks_beside_a_tensor_without_values_have_none():
    with FakeTensorMode():
        like = torch.empty(1)
    blocks = Blocks(3 * BLOCK, True, like)
    assert isinstance(blocks.codes, FakeTensor) and isinstance(blocks.scales, FakeTensor)
