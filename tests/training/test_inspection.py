from __future__ import annotations

import torch
from torch import nn

from tests.training.tiny import TinyNet, TinyTask, one_rank, run_tiny
from training.inspection import architecture, shapes


def test_a_parameter_without_gradient_is_named_at_the_first_step():
    run = run_tiny(one_rank(), TinyTask(unused=True))
    warnings = [facts for kind, facts in run.listener.events if kind == "warning"]
    assert warnings == [
        {"text": "no gradient reached unused in the first step", "names": ["unused"]}
    ]


class FrozenTask(TinyTask):
    def build(self) -> nn.Module:
        model = TinyNet()
        model.linear.bias.requires_grad_(False)
        return model


def test_a_parameter_that_the_optimizer_does_not_hold_is_named():
    run = run_tiny(one_rank(), FrozenTask())
    assert ("frozen", {"count": 1, "names": ["linear.bias"]}) in run.listener.events


def test_a_sound_model_raises_no_word():
    assert run_tiny(one_rank()).listener.kinds() == ["preview", "preview"]


def test_the_shapes_of_the_first_batch_are_told_where_asked_for():
    run = run_tiny(one_rank(), train={"debug": True})
    assert [facts for kind, facts in run.listener.events if kind == "first_batch"] == [
        {
            "index": "[2] int64",
            "x": "[2, 4] float64",
            "y": "[2, 4] float64",
            "mask": "[2, 4] bool",
        }
    ]


def test_shapes_go_into_nested_batches():
    found = shapes({"image": {"left": torch.zeros(1, 2)}, "names": ["a"]})
    assert found == {"image": {"left": "[1, 2] float32"}, "names": "list"}


def test_an_architecture_is_names_and_shapes_and_not_weights():
    def digest(*layers):
        model = nn.Sequential()
        for name, layer in layers:
            model.add_module(name, layer)
        return architecture(model)

    one = digest(("a", nn.Linear(3, 2)))
    assert one.parameters == 8
    assert one == digest(("a", nn.Linear(3, 2)))
    assert one.digest != digest(("b", nn.Linear(3, 2))).digest
    assert one.digest != digest(("a", nn.Linear(1, 4))).digest
