"""The loss scale moves as torch's own scaler moves it."""

from __future__ import annotations

import random

import torch

from engines.precision import LossScale


def test_the_scale_follows_torchs_grad_scaler() -> None:
    draw = random.Random(0)
    scale = LossScale()
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    judge = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    seen = set()
    for update in range(4100):
        overflow = update in (5, 6, 2500) or (update < 100 and draw.random() < 0.1)
        weight.grad = torch.full((1,), float("inf") if overflow else 1.0)
        judge.scale(torch.ones(1))
        judge.step(optimizer)
        judge.update()
        scale.told(overflow)
        assert scale.value == judge.get_scale()
        seen.add(scale.value)
    assert len(seen) > 3  # it went down and up


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    saved, loaded = LossScale(4.0), LossScale()
    for _ in range(1999):
        saved.told(overflow=False)
    loaded.load(saved.state())
    saved.told(overflow=False)
    loaded.told(overflow=False)
    assert saved.value == loaded.value == 8.0


def test_the_scale_stays_a_number_when_every_update_overflows() -> None:
    scale = LossScale()
    for _ in range(2000):
        scale.told(overflow=True)
    assert scale.value == LossScale.LEAST
