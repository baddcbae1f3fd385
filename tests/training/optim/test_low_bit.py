"""AdamW with moments of 16 and 8 bits: its steps, its rounding and its codes."""

import pytest
import torch

from training.optim import low_bit
from training.optim.low_bit import BLOCK, Blocks, Blockwise, LowBitAdamW

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
    monkeypatch.setattr("training.optim.low_bit._AT_ONCE", 4 * BLOCK)
    (parts,), _ = stepped(low(state), shapes=[(9000,)])
    if state == "int8":
        assert torch.equal(whole, parts)
    # In bf16 the place of an element in its part decides how it is rounded.
    assert (whole - parts).square().mean().sqrt() < 0.005 * 1e-2


@pytest.mark.slow
@STATES
def test_the_codec_is_compiled_on_a_gpu_or_says_once_that_it_is_not(state, monkeypatch, caplog):
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
    assert set(calls) == ({"_rounded"} if state == "bf16" else {"_products", "_nearest_codes"})
    assert [r.levelname for r in caplog.records if r.name == low_bit.__name__] == ["WARNING"]


def slot(size, is_signed):
    return Blockwise(Blocks(size, is_signed, torch.device("cpu")), [size])


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
    parts.blocks.begun.clear()  # as a step does
    assert torch.equal(values_of(parts), decoded)
    parts[5:300].copy_(torch.ones(295))
    parts.copy_(decoded)
    assert torch.equal(values_of(parts), decoded)


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
