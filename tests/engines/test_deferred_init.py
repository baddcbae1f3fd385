"""Deferred initialization: values, generator, memory, and every engine."""

from functools import partial

import torch
from torch import nn

from gearshift.engines import deferred_init
from gearshift.engines.state import is_deferred
from tests.engines.parity import Case, Net, around, options, spec
from tests.engines.test_parity import able


@torch.no_grad()
def changed_afterwards(model):
    model[0].weight.mul_(3).add_(1).clamp_(-2, 2)
    model[0].weight[4].fill_(7)


def tied(model):
    model.extend([nn.Embedding(9, 4, padding_idx=2), nn.Linear(4, 9)])
    model[4].weight = model[3].weight


def buffers(model):
    model.register_buffer("ones", torch.empty(4).fill_(1))
    model.register_buffer("drawn", torch.empty(4).uniform_())
    model.register_buffer("triangle", torch.ones(4, 4).triu_())


def drawn_twice(model):
    nn.init.xavier_uniform_(model[0].weight)
    nn.init.normal_(model[2].weight, std=0.5)


def read_by_numpy(model):
    model.register_buffer("mean", torch.tensor(float(model[0].weight.detach().numpy().mean())))


def shared_memory(model):
    both = torch.empty(2, 6).normal_()
    model.first, model.second = nn.Parameter(both[0]), nn.Parameter(both[1])


WITHOUT_READS = {
    "plain": lambda model: None,
    "orthogonal": lambda model: nn.init.orthogonal_(model[0].weight),
    **{change.__name__: change for change in (changed_afterwards, tied, buffers, drawn_twice)},
}
WITH_READS = {
    "order": lambda model: setattr(model, "order", torch.tensor(torch.randperm(50).tolist())),
    "unregistered": lambda model: setattr(model, "order", torch.empty(5).normal_()),
    **{change.__name__: change for change in (read_by_numpy, shared_memory)},
}


def make(name):
    model = nn.Sequential(nn.Linear(30, 20), nn.LayerNorm(20), nn.Linear(20, 3))
    {**WITHOUT_READS, **WITH_READS}[name](model)
    return model


def test_values_buffers_and_generator_are_those_of_a_plain_start(worlds):
    for name in (*WITHOUT_READS, *WITH_READS):
        for is_deferred_, wrong in worlds[2].run(built, name):
            assert (is_deferred_, wrong) == (name in WITHOUT_READS, []), name


def built(world, name):
    """Whether a model is deferred, and what differs from a plain start."""
    torch.manual_seed(5)
    expected, generator = make(name), torch.get_rng_state()
    torch.manual_seed(5)
    model, weights = deferred_init.build(partial(make, name), world)
    parameters = dict(model.named_parameters())
    deferred = [name for name, p in parameters.items() if is_deferred(p)]
    assert deferred == list(weights)
    values, theirs = values_of(model), values_of(expected)
    # Another rank has no values of deferred parameters, and of one that is tied to them.
    own = theirs.keys() - ({*deferred, "4.weight"} if world.rank and deferred else ())
    wrong = [name for name in own if not torch.equal(values[name], theirs[name])]
    wrong += [] if torch.equal(generator, torch.get_rng_state()) else ["generator"]
    return bool(deferred), wrong


def values_of(model):
    return {**model.state_dict(), **({"order": model.order} if hasattr(model, "order") else {})}


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
    chosen = vars(options(case, world))
    with around(world, case.engine, model, spec(0.5, 1e-3), model.blocks, **chosen) as (engine, _):
        deferred_init.write(weights, engine)
        return [
            piece.name
            for piece in engine.state().pieces
            if piece.kind == "weight"
            and not torch.equal(
                piece.data.detach().cpu().view(-1),
                expected[piece.name].view(-1)[piece.start :][: piece.data.numel()],
            )
        ]
