"""Batches are copied to a GPU beside its computations."""

import pytest
import torch

from tests.training.data import test_loader

pytestmark = pytest.mark.gpu


def test_batches_copied_beside_computations_arrive_whole(monkeypatch):
    here = test_loader.batches()
    expected = [test_loader.rows(here.take()) for _ in range(6)]
    monkeypatch.setattr(test_loader, "CPU", torch.device("cuda", 0))
    busy = torch.randn(4096, 4096, device="cuda")
    there, taken = test_loader.batches(), []
    for _ in range(6):
        there.ahead()
        busy = (busy @ busy).tanh()
        taken.append([micro.batch["x"].clone() for micro in there.take()])
    assert [[x.tolist() for x in step] for step in taken] == expected
