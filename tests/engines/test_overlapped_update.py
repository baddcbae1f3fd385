"""The update of one module runs while the forward pass computes those before it."""

from functools import partial
from threading import Event, local

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gearshift.engines.overlapped_update import OverlappedUpdate
from tests.engines.parity import Case, around, joined, one_step, outcome, prepared, spec, train
from tests.engines.test_parity import able

INPUT = torch.ones(2, 4)


class Held(SGD):
    """SGD that calls `before` with the parameters of each step."""

    def __init__(self, parameters, before=lambda parameters: None):
        super().__init__(parameters, lr=0.1)
        self.before = before

    def step(self, closure=None):
        self.before([p for group in self.param_groups for p in group["params"]])
        return super().step(closure)


@pytest.fixture
def overlapped():
    """Starts an overlapped update of a model after a backward pass; the model and its update."""
    opened = []

    def begin(model, optimizer):
        owned = {module: list(module.parameters()) for module in model}
        update = OverlappedUpdate(optimizer, owned, torch.device("cpu"))
        opened.append(update)
        model(INPUT).sum().backward()
        return update

    yield begin
    for update in opened:
        update.close()


def layers(kind=nn.Sequential):
    torch.manual_seed(0)
    return kind(*(nn.Linear(4, 4) for _ in range(3)))


def test_a_forward_pass_reaches_a_module_whose_successor_is_not_updated_yet(overlapped):
    model, reached = layers(), Event()

    def hold(parameters):
        if model[2].weight in set(parameters):
            assert reached.wait(60), "the forward pass waits for all updates"

    update = overlapped(model, Held(model.parameters(), hold))
    model[1].register_forward_hook(lambda *_: reached.set())
    update.start(torch.tensor(0.5))
    output = model(INPUT)

    plain = layers()
    plain(INPUT).sum().backward()
    for parameter in plain.parameters():
        parameter.grad *= 0.5
    SGD(plain.parameters(), lr=0.1).step()
    assert torch.equal(output, plain(INPUT))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_error_of_an_update_is_raised_where_its_weights_are_needed(overlapped):
    def fail(parameters):
        raise MemoryError("no memory")

    model = layers()
    overlapped(model, Held(model.parameters(), fail)).start(None)
    with pytest.raises(MemoryError, match="no memory"):
        model(INPUT)


def test_the_thread_is_on_the_gpu_of_its_rank(monkeypatch):
    on = local()  # CUDA: a new thread is on GPU 0
    monkeypatch.setattr(torch.cuda, "set_device", partial(setattr, on, "device"))
    model, seen = layers(), []
    optimizer = Held(model.parameters(), lambda _: seen.append(getattr(on, "device", None)))
    owned, device = {model: list(model.parameters())}, torch.device("cuda:1")
    update = OverlappedUpdate(optimizer, owned, device)
    update.start(None)
    update.wait()
    update.close()
    assert seen == [device]


def train_overlapped(world, case):
    with prepared(world, case) as (engine, module):
        engine._overlap_update()  # as with offload to the host of a GPU
        steps = [one_step(world, engine, module, case, step + 1) for step in range(case.steps)]
        return outcome(engine, steps)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp16", "overflow_at": 3},
        *(pytest.param(changes, marks=pytest.mark.slow) for changes in ({}, {"state": "int8"})),
    ],
    ids=str,
)
@able("fsdp")
def test_steps_are_those_of_an_update_before_the_pass(worlds, engine, changes):
    case = Case(engine, steps=5, clip_norm=0.3, **changes)
    overlapped, plain = (worlds[2].run(run, case) for run in (train_overlapped, train))
    np.testing.assert_array_equal(overlapped[0].losses, plain[0].losses)
    np.testing.assert_array_equal(overlapped[0].norms, plain[0].norms)
    mine, theirs = joined(overlapped), joined(plain)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)


class Scaled(nn.Module):
    """Reads a parameter of its block before the block."""

    def __init__(self):
        super().__init__()
        self.block = nn.Linear(4, 4)
        self.block.scale = nn.Parameter(torch.ones(()))
        self.read = Event()

    def forward(self, x):
        x = x * self.block.scale
        self.read.set()
        return self.block(x)


def passes_of_a_scalar(world):
    """The output of a pass beside an update, and of one after it."""
    model = Scaled()

    def hold(optimizer, *_):
        held = [p for group in optimizer.param_groups for p in group["params"]]
        if model.block.weight in set(held):
            assert model.read.wait(60), "the pass waits for the whole update"

    with around(world, "fsdp", model, spec(None, 0.1), [model.block]) as (engine, module):
        engine._overlap_update()  # as with offload to the host of a GPU
        with engine.accumulate(last=True):
            engine.backward(module(INPUT).square().sum())
        model.read.clear()
        with register_optimizer_step_pre_hook(hold), torch.no_grad():
            engine.step()
            return module(INPUT), module(INPUT)


def test_a_parameter_that_is_read_before_its_block_is_updated_by_then(worlds):
    ((beside, after),) = worlds[1].run(passes_of_a_scalar)
    assert torch.equal(beside, after)
