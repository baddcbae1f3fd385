"""Precision: autocast inside the model, TF32 flags and the loss scale."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from engines.base import EngineError
from engines.precision import LossScale, autocast_inside, check_precision, set_matmul_precision

CPU = torch.device("cpu")


class Spy(nn.Module):
    """Records the dtype of its product, and returns it with a count."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.seen: torch.dtype | None = None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.linear(x)
        self.seen = y.dtype
        return {"y": y, "count": torch.ones(1, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("precision", "inside"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_products_have_low_precision_and_outputs_and_gradients_are_fp32(precision, inside) -> None:
    model = Spy()
    names = list(model.state_dict())
    autocast_inside(model, precision, CPU)
    output = model(torch.randn(4, 3))
    assert model.seen == inside
    assert output["y"].dtype == torch.float32 and output["count"].dtype == torch.int64
    output["y"].sum().backward()
    assert model.linear.weight.dtype == model.linear.weight.grad.dtype == torch.float32
    assert list(model.state_dict()) == names


def test_a_deep_copy_calls_its_own_weights() -> None:
    model = Spy()
    autocast_inside(model, "bf16", CPU)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.linear.weight.zero_()
        other.linear.bias.zero_()
    x = torch.ones(1, 3)
    assert (other(x)["y"] == 0).all() and not (model(x)["y"] == 0).all()


def tf32_flags() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_tf32_is_set_for_tf32_only_and_restored() -> None:
    before = tf32_flags()
    assert before[1], "convolutions use TF32 by torch's default"
    for precision in ("fp32", "bf16", "fp16"):
        restore = set_matmul_precision(precision)
        assert tf32_flags() == before
        restore()
    restore = set_matmul_precision("tf32")
    assert tf32_flags() == ("high", True)
    restore()
    assert tf32_flags() == before


def test_tf32_is_an_error_on_devices_without_it() -> None:
    with pytest.raises(EngineError, match="'tf32' is a format of NVIDIA GPUs; allowed on cpu"):
        check_precision("tf32", CPU)


def test_bf16_params_is_an_error_with_the_engines_that_support_it() -> None:
    with pytest.raises(EngineError, match="only fsdp, fsdp-offload and the zero engines support"):
        check_precision("bf16-params", CPU)
    check_precision("bf16-params", CPU, holds_bf16_params=True)


def test_the_scale_follows_torchs_grad_scaler() -> None:
    draw = random.Random(0)
    scale = LossScale()
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    reference = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    seen = set()
    for update in range(4100):
        overflow = update in (5, 6, 2500) or (update < 100 and draw.random() < 0.1)
        weight.grad = torch.full((1,), float("inf") if overflow else 1.0)
        reference.scale(torch.ones(1))
        reference.step(optimizer)
        reference.update()
        scale.update(overflow)
        assert scale.value == reference.get_scale()
        seen.add(scale.value)
    assert len(seen) > 3  # it went down and up


def test_a_loaded_state_continues_like_the_saved_one() -> None:
    saved, loaded = LossScale(4.0), LossScale()
    for _ in range(1999):
        saved.update(overflow=False)
    loaded.load(saved.state())
    saved.update(overflow=False)
    loaded.update(overflow=False)
    assert saved.value == loaded.value == 8.0


def test_the_scale_stays_finite_if_every_update_overflows() -> None:
    scale = LossScale()
    for _ in range(2000):
        scale.update(overflow=True)
    assert scale.value == LossScale.MINIMUM
