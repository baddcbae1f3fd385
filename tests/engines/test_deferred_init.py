"""Deferred initialization: values, generator, memory, and every engine."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from engines import deferred_init
from engines.catalog import build_engine
from engines.deferred_init import is_deferred
from tests.engines.parity import Case, Net, options, spec
from tests.engines.test_parity import able


class Rank:
    """Rank `rank` of two, alone: what it broadcasts comes back."""

    size = 2
    device = torch.device("cpu")

    def __init__(self, rank):
        self.rank = rank

    def broadcast(self, data):
        return data


def plain():
    return nn.Sequential(nn.Linear(30, 20), nn.LayerNorm(20), nn.Linear(20, 3))


def drawn_twice():
    model = plain()
    nn.init.xavier_uniform_(model[0].weight)
    nn.init.normal_(model[2].weight, std=0.5)
    return model


def changed_afterwards():
    model = plain()
    with torch.no_grad():
        model[0].weight.mul_(3).add_(1).clamp_(-2, 2)
        model[0].weight[4].fill_(7)
    return model


def padding_and_ties():
    model = nn.ModuleDict({"embedding": nn.Embedding(9, 4, padding_idx=2), "head": nn.Linear(4, 9)})
    model["head"].weight = model["embedding"].weight
    return model


def orthogonal():
    model = plain()
    nn.init.orthogonal_(model[0].weight)
    return model


def copied_layer():
    layer = nn.Linear(5, 5)
    return nn.ModuleList([nn.Linear(5, 5), copy.deepcopy(layer), copy.deepcopy(layer), layer])


def read_by_numpy():
    model = plain()
    model.register_buffer("mean", torch.tensor(float(model[0].weight.detach().numpy().mean())))
    return model


def buffers():
    model = plain()
    model.register_buffer("ones", torch.empty(4).fill_(1))
    model.register_buffer("drawn", torch.empty(4).uniform_())
    model.register_buffer("triangle", torch.ones(4, 4).triu_())
    return model


def run_without_values():
    model = plain()
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.ones(2, 30)).shape == (2, 3)
    return model


def drawn_order():
    model = plain()
    order = torch.randperm(50).tolist()
    model.order = lambda: order
    return model


def unregistered():
    model = plain()
    values = [torch.empty(5).normal_()]
    model.order = lambda: values[0].tolist()
    return model


def shared_memory():
    model = plain()
    both = torch.empty(2, 6).normal_()
    model.first, model.second = nn.Parameter(both[0]), nn.Parameter(both[1])
    return model


WITHOUT_READS = (plain, drawn_twice, changed_afterwards, padding_and_ties, run_without_values)
WITH_READS = (
    *(orthogonal, copied_layer, read_by_numpy, buffers, drawn_order),
    *(unregistered, shared_memory),
)


def build(make, rank):
    torch.manual_seed(5)
    model, weights = deferred_init.build(make, Rank(rank))
    return model, weights, torch.get_rng_state()


@pytest.mark.parametrize("make", [*WITHOUT_READS, *WITH_READS])
def test_values_and_generator_are_those_of_a_plain_start(make):
    torch.manual_seed(5)
    expected = make()
    model, weights, generator = build(make, 0)
    assert torch.equal(generator, torch.get_rng_state())
    # In another order than they were recorded, and at another state of the generator.
    for tensor in reversed(weights._tensors.values()):
        weights._recorder.finish(tensor)
    assert_equal(model.state_dict(), expected.state_dict())
    assert getattr(model, "order", list)() == getattr(expected, "order", list)()


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("make", [*WITHOUT_READS, *WITH_READS])
def test_all_ranks_defer_the_same_parameters_and_rank_0_alone_draws_what_nothing_reads(make):
    (first, weights, _), (other, others, generator) = build(make, 0), build(make, 1)
    for model, deferred in ((first, weights), (other, others)):
        names = [name for name, p in model.named_parameters() if is_deferred(p)]
        assert names == list(deferred._tensors) == list(weights._tensors) != []
        assert not {"first", "second"} & {*names}  # they share memory
    if make in WITHOUT_READS:
        torch.manual_seed(5)
        assert torch.equal(generator, torch.get_rng_state())
        assert not others._recorder._draws
        return
    for name, parameter in other.named_parameters():
        if not is_deferred(parameter):
            assert torch.equal(parameter, first.get_parameter(name)), name
    assert_equal(dict(other.named_buffers()), dict(first.named_buffers()))
    assert getattr(other, "order", list)() == getattr(first, "order", list)()


def test_one_rank_defers_nothing():
    world = Rank(0)
    world.size = 1
    torch.manual_seed(5)
    model, _ = deferred_init.build(plain, world)
    torch.manual_seed(5)
    assert_equal(model.state_dict(), plain().state_dict())
    assert not any(map(is_deferred, model.parameters()))


@able("ddp", "fsdp", "fsdp-offload", "zero1", "zero3", "zero3-offload")
def test_every_engine_holds_the_values_of_a_plain_start(worlds, engine):
    precision = "fp32" if engine in ("ddp", "fsdp-offload", "zero3") else "bf16"
    for wrong in worlds[2].run(differing, Case(engine, precision=precision)):
        assert wrong == []


def differing(world, case):
    """The names of the weights, two of them frozen, that are not those of a plain start."""
    torch.manual_seed(3)
    expected = Net().state_dict()
    torch.manual_seed(3)
    model, weights = deferred_init.build(Net, world)
    assert any(map(is_deferred, model.parameters()))
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    engine = build_engine(case.engine, world, options(case, world))
    try:
        engine.prepare(model, spec(0.5, 1e-3), list(model.blocks))
        weights.write(engine)
        return [
            piece.name
            for piece in engine.state().pieces
            if piece.kind == "weight"
            and not torch.equal(
                piece.data.detach().cpu().view(-1),
                expected[piece.name].view(-1)[piece.start :][: piece.data.numel()],
            )
        ]
    finally:
        engine.close()


MEMORY = """
import sys, torch
from torch import nn
from engines import deferred_init
from tests.engines.test_deferred_init import Rank

def peak():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) / 1024

def make():
    return nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(6)))

deferred_init.build(lambda: nn.Linear(2, 2), Rank(0))  # imports
before = peak()
model, weights = deferred_init.build(make, Rank(int(sys.argv[1])))
assert sum(p.numel() for p in model.parameters()) * 4 > 96 * 2**20
print(peak() - before)
"""


ALONE = """
from engines.base import Options
from engines.catalog import build_engine
from tests.engines.parity import spec

def frozen():
    return make().requires_grad_(False).append(nn.Linear(2048, 2))

def prepared(make):
    world = Rank(0)
    world.size = 1
    model, weights = deferred_init.build(make, world, defers_alone=True)
    engine = build_engine("local", world, Options(precision="bf16"))
    engine.prepare(model, spec(1.0, 1e-3), [])
    weights.write(engine)
    return engine

prepared(lambda: nn.Linear(2, 2))
before = peak()
engine = prepared(frozen)
print(peak() - before)
"""


def peak_mib(program, *arguments, **variables):
    command, env = [sys.executable, "-c", program, *arguments], {**os.environ, **variables}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return float(found.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_model_of_100_mib_is_built_in_the_memory_of_one_layer():
    assert peak_mib(MEMORY, "0") < 48


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_frozen_weights_of_100_mib_are_placed_in_half_of_it_and_the_memory_of_two_layers():
    """Also if the heap, not the system, gets what is freed, as after larger blocks."""
    threshold = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}
    assert peak_mib(MEMORY + ALONE, "1", **threshold) < 48 + 32
