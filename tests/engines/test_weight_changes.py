"""What forward passes do to parameters is seen by what happened."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from gearshift.engines.base import EngineError, Options
from gearshift.engines.weight_changes import STEPS, WeightChanges, checksum
from tests.engines.parity import around, spec
from tests.engines.test_parity import able
from tests.training.tiny import one_rank


def test_checksums_of_parts_add_up_to_that_of_the_whole():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.uint8):
        whole = (torch.randn(7, 5) * 50).to(dtype)
        assert checksum(whole) == checksum(whole[:3]) + checksum(whole[3:])
    changed = torch.ones(3)
    before = checksum(changed)
    changed.data[1] = 2.0
    assert checksum(changed) != before


@pytest.mark.parametrize("step", [1, STEPS])
def test_other_memory_of_a_pinned_parameter_and_a_changed_copy_are_refused(step):
    for change in ("memory", "value"):
        model = nn.Linear(2, 2)
        copy = model.weight.detach().clone()
        changes = WeightChanges(
            one_rank(),
            Options(),
            dict(model.named_parameters()),
            pinned=["weight"],
            copies=lambda model=model, copy=copy: [("weight", model.weight, copy)],
        )
        for _ in range(step - 1):
            changes.begin_pass()
            changes.end_step()
        changes.begin_pass()
        if change == "memory":
            model.weight.data = model.weight.data.clone()
        else:
            model.weight.data.mul_(2)
        with pytest.raises(EngineError, match="'weight'"):
            changes.end_step()


def test_nothing_is_checked_after_the_first_steps():
    model = nn.Linear(2, 2)
    changes = WeightChanges(
        one_rank(), Options(), dict(model.named_parameters()), pinned=["weight"]
    )
    changes.watch([model], lambda module: [])
    for _ in range(STEPS):
        assert model._forward_hooks
        changes.begin_pass()
        changes.end_step()
    assert not model._forward_hooks
    model.weight.data = model.weight.data.clone()
    changes.end_step()


class Replaced(nn.Module):
    """A block that computes with other weights than its own."""

    def __init__(self, method):
        super().__init__()
        self.method = method
        self.block = nn.Linear(2, 2, bias=False)
        self.other = nn.Linear(2, 2, bias=False)

    def forward(self, x):
        if self.method == "call":
            return functional_call(self.block, {"weight": 2 * torch.eye(2)}, x) + self.other(x)
        if self.method == "call with parameters":
            return functional_call(self.block, dict(self.other.named_parameters()), x)
        self.block.weight = nn.Parameter(2 * torch.eye(2))
        return self.block(x) + self.other(x)


def loss_or_error(world, engine_name, method):
    """The loss of a plain forward pass, and that of an engine or its error before an update."""
    torch.manual_seed(0)
    model = Replaced(method)
    x = torch.tensor([[1.0, 2.0]])
    other = model.other.weight.detach().clone()
    plain = x @ other.t() + (0 if method == "call with parameters" else 2 * x)
    blocks = [model.block, model.other]
    with around(world, engine_name, model, spec(None, 0.1), blocks) as (engine, module):
        with engine.accumulate(last=True):
            loss = module(x).sum()
            engine.backward(loss)
        try:
            engine.step()
        except EngineError as error:
            return plain.sum().item(), str(error)
    return plain.sum().item(), loss.item()


@pytest.mark.parametrize("method", ["call", "call with parameters", "assign"])
@able("fsdp", "ddp", "zero2", slow=("ddp", "zero2"))
def test_other_weights_in_the_place_of_gathered_ones_are_refused(worlds, engine, method):
    for plain, outcome in worlds[2].run(loss_or_error, engine, method):
        if engine == "fsdp":
            reason, engines = outcome.split("; engines that train it: ")
            assert "'block.weight'" in reason
            assert "ddp" in engines and "fsdp" not in engines
        elif (engine, method) == ("zero2", "assign"):  # its optimizer finds the parameter no more
            assert "'block.weight'" in outcome
        else:
            assert outcome == pytest.approx(plain)
