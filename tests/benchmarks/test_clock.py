"""The clock ticks once per step of PyTorch's optimizer, and rejects missing steps."""

from __future__ import annotations

import pytest
import torch

from benchmarks.clock import StepClock


def step(times: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    for _ in range(times):
        optimizer.step()


def test_the_steps_after_the_warm_up_are_timed():
    with StepClock(warmup=1, steps=3, device="cpu") as clock:
        step(3)
    assert clock.seconds_per_step == (clock.end - clock.begin) / 2 > 0


def test_missing_steps_give_no_figure():
    with StepClock(warmup=1, steps=3, device="cpu") as clock:
        step(2)
    with pytest.raises(RuntimeError, match="2 steps, not 3"):
        clock.seconds_per_step  # noqa: B018


def test_an_optimizer_called_for_each_part_of_the_parameters_ticks_once_per_step():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    parts = [[{**optimizer.param_groups[0], "params": [torch.zeros(1)]}] for _ in range(3)]
    with StepClock(warmup=1, steps=2, device="cpu") as clock:
        for part in parts * 2:
            optimizer.param_groups = part
            optimizer.step()
    assert clock.seconds_per_step > 0


def test_each_step_is_announced_with_its_number():
    announced: list[int] = []
    with StepClock(warmup=1, steps=3, device="cpu", after=announced.append):
        step(4)
    assert announced == [1, 2, 3, 4]


def test_a_stopped_clock_no_longer_ticks():
    with StepClock(warmup=1, steps=2, device="cpu") as clock:
        step(2)
    step(1)
    assert clock.ticks == 2
