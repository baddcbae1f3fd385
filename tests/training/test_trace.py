"""A trace of a replay is made under every engine, each rank writing what it holds."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gearshift.engines.catalog import ENGINES
from gearshift.training.trace import Trace
from tests.engines.parity import around, spec
from tests.engines.test_parity import able_mark


def traced(world, engine_name, folder, lr):
    """The lines of one step of two micro-batches on this rank."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    with around(world, engine_name, model, spec(None, lr), [model[0]]) as (engine, module):
        trace = Trace(folder, 0, SimpleNamespace(), model, engine)
        trace.begin([])
        for last in (False, True):
            with engine.accumulate(last):
                loss = module(torch.randn(4, 8)).square().mean()
                engine.backward(loss)
        engine.step()
        trace.step(SimpleNamespace(loss=loss.detach(), lr=lr, step=1))
    lines = (folder / f"{world.rank}.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


FAST = ("ddp", "fsdp", "zero3")
CASES = [
    pytest.param(name, marks=[able_mark(name), *[pytest.mark.slow] * (name not in FAST)])
    for name in ENGINES
]


@pytest.mark.parametrize("engine", CASES)
def test_equal_steps_have_equal_traces_and_another_rate_other_weights(worlds, tmp_path, engine):
    traces = []
    for name, lr in (("first", 0.1), ("again", 0.1), ("other", 0.2)):
        folder = tmp_path / name
        folder.mkdir()
        traces.append(worlds[2].run(traced, engine, folder, lr))
    first, again, other = traces
    assert first == again
    changed = set()
    for lines, other_lines in zip(first, other, strict=True):
        assert {"output", "loss", "lr", "weight", "buffer"} <= {line[2] for line in lines}
        for line, other_line in zip(lines, other_lines, strict=True):
            if line != other_line:
                changed.add(line[2] if line[0] else "start")
    assert {"lr", "weight"} <= changed
    assert not changed & {"start", "output", "loss", "gradient", "buffer"}
