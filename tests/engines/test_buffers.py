"""After an update every rank holds the buffers of rank 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engines.base import Options, World
from engines.catalog import build_engine
from tests.engines.parity import spec
from tests.engines.pool import Pool
from tests.engines.test_parity import all_of_torch


class Counting(nn.Module):
    """Batch statistics, a count that is replaced rather than moved, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("constant", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + len(x)
        self.constant.fill_(x[0, 0].item())
        return self.norm(x)


def count(world: World, engine_name: str) -> tuple[dict[str, list], float, list]:
    net = Counting()
    engine = build_engine(engine_name, world, Options())
    module = engine.prepare(net, spec(clip_norm=None, lr=0.1), [])
    with engine.accumulate(last=True):
        engine.backward(module(torch.arange(8.0).reshape(4, 2) * (world.rank + 1)).sum())
    engine.step()
    held = {name: buffer.tolist() for name, buffer in engine.state().buffers.items()}
    engine.close()
    return held, net.constant.item(), net.norm.running_mean.tolist()


@all_of_torch
def test_statistics_are_those_of_rank_zero(worlds: dict[int, Pool], engine: str) -> None:
    (held, _, mean), (other, _, other_mean) = worlds[2].run(count, engine)
    assert held == other
    assert held["count"] == [4] and "constant" not in held
    # A tenth of the mean of rank 0's batch: columns 0, 2, 4, 6 and 1, 3, 5, 7.
    assert held["norm.running_mean"] == mean == other_mean == pytest.approx([0.3, 0.4])
