"""Precision: autocast inside the model, TF32 flags and the loss scale."""

import copy
import random

import pytest
import torch
from torch import nn

from gearshift.engines.base import EngineError
from gearshift.engines.loss_scale import LossScale
from gearshift.engines.norms import norms_in_fp32
from gearshift.engines.precision import autocast_inside, check_precision, set_matmul_precision

CPU = torch.device("cpu")


class Spy(nn.Module):
    """Records the dtype of its product, and returns it with a count."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.seen = None

    def forward(self, x):
        y = self.linear(x)
        self.seen = y.dtype
        return {"y": y, "count": torch.ones(1, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("precision", "inside"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_have_low_precision_and_outputs_and_gradients_are_fp32(precision, inside):
    model = Spy()
    names = list(model.state_dict())
    autocast_inside(model, precision, CPU)
    output = model(torch.randn(4, 3))
    assert model.seen == inside
    assert output["y"].dtype == torch.float32 and output["count"].dtype == torch.int64
    output["y"].sum().backward()
    assert model.linear.weight.dtype == model.linear.weight.grad.dtype == torch.float32
    assert list(model.state_dict()) == names
    other = copy.deepcopy(model)  # calls its own weights
    for parameter in other.parameters():
        parameter.data.zero_()
    assert not other(torch.ones(1, 3))["y"].any() and model(torch.ones(1, 3))["y"].any()


def tf32_flags():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_tf32_is_set_for_tf32_only_and_restored_and_an_error_on_devices_without_it():
    before = tf32_flags()
    assert before[1], "convolutions use TF32 by torch's default"
    for precision in ("fp32", "bf16", "tf32"):
        restore = set_matmul_precision(precision)
        assert tf32_flags() == (("high", True) if precision == "tf32" else before)
        restore()
        assert tf32_flags() == before
    with pytest.raises(EngineError, match="'tf32' is a format of NVIDIA GPUs; allowed on cpu"):
        check_precision("tf32", CPU)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(6), (4, 6, 5)),
        (nn.BatchNorm2d(6, affine=False), (4, 6, 5, 5)),
        (nn.InstanceNorm1d(6, affine=True), (4, 6, 5)),
        (nn.GroupNorm(2, 6), (4, 6, 5)),
        (nn.LayerNorm(6, bias=False), (4, 5, 6)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_normalization_with_16_bit_weights_computes_as_with_fp32_weights(layer, shape):
    plain, sharded = copy.deepcopy(layer), nn.Sequential(copy.deepcopy(layer))
    for parameter in sharded.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    norms_in_fp32(sharded)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for given in (inputs, inputs.bfloat16()):
        assert torch.equal(sharded(given), plain(given))
    assert [*sharded.state_dict()] == [f"0.{name}" for name in plain.state_dict()]
    for name, buffer in plain.named_buffers():
        assert torch.equal(sharded[0].get_buffer(name), buffer)
    sharded(inputs.requires_grad_()).float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in sharded.parameters())


def test_the_scale_follows_torchs_grad_scaler():
    draw = random.Random(0)
    scale = LossScale()
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    reference = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    seen = set()
    for update in range(2220):
        overflow = update in (5, 6, 2210) or (update < 100 and draw.random() < 0.1)
        weight.grad = torch.full((1,), float("inf") if overflow else 1.0)
        reference.scale(torch.ones(1))
        reference.step(optimizer)
        reference.update()
        scale.update(overflow)
        assert scale.value == reference.get_scale()
        seen.add(scale.value)
    assert len(seen) > 3  # it went down and up


def test_a_scale_at_its_minimum_stays_and_says_that_a_smaller_one_cannot_help():
    scale = LossScale(4.0)
    assert [(scale.update(overflow=True), scale.value) for _ in range(4)] == [
        *((True, 2.0), (True, 1.0), (False, 1.0), (False, 1.0))
    ]


def test_a_loaded_scale_grows_when_the_one_before_would_have():
    before, after = LossScale(64.0), LossScale()
    for _ in range(LossScale.INTERVAL - 1):
        before.update(overflow=False)
    after.load(before.state())
    after.load({})  # of a run without one
    assert after.update(overflow=False) is False
    assert (after.value, after.good_updates) == (128.0, 0)
