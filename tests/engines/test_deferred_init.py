"""Deferred initialization: values, generator, memory, and every engine."""

import torch
from torch import nn

from engines import deferred_init
from engines.catalog import build_engine
from engines.deferred_init import is_deferred
from tests.engines.parity import Case, Net, options, spec
from tests.engines.test_parity import able


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


WITHOUT_READS = (plain, drawn_twice, changed_afterwards, padding_and_ties, orthogonal, buffers)
WITH_READS = (read_by_numpy, drawn_order, unregistered, shared_memory)


def test_values_buffers_and_generator_are_those_of_a_plain_start(worlds):
    for found in worlds[2].run(built):
        for name, (is_deferred_, wrong) in found.items():
            assert wrong == [], name
            assert is_deferred_ == (name in {make.__name__ for make in WITHOUT_READS}), name


def built(world):
    """For each model whether it is deferred, and what differs from a plain start."""
    found = {}
    for make in (*WITHOUT_READS, *WITH_READS):
        torch.manual_seed(5)
        expected, generator = make(), torch.get_rng_state()
        torch.manual_seed(5)
        model, weights = deferred_init.build(make, world)
        deferred = [name for name, p in model.named_parameters() if is_deferred(p)]
        assert deferred == list(weights)
        values = {**model.state_dict(), "order": getattr(model, "order", list)()}
        wrong = [
            name
            for name, value in {**expected.state_dict(), "order": getattr(expected, "order", list)()}.items()
            if (world.rank == 0 or not is_deferred(dict(model.named_parameters()).get(name, value)))
            and not (torch.equal(values[name], value) if name != "order" else values[name] == value)
            and not (world.rank and name == "head.weight")  # tied to a deferred one
        ]
        wrong += [] if torch.equal(generator, torch.get_rng_state()) else ["generator"]
        found[make.__name__] = bool(deferred), wrong
    return found


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
    finally:
        engine.close()
