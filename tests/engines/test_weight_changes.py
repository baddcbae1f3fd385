"""What forward passes do to parameters is seen by what happened."""

import pytest
import torch
from torch import nn

from gearshift.engines.base import EngineError, Options
from gearshift.engines.weight_changes import STEPS, WeightChanges, checksum
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
