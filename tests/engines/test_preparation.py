"""Preparation of a model changes no name and no number."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gearshift.engines.base import Options
from gearshift.engines.preparation import change_forward
from tests.engines.parity import Block, Net, around, spec
from tests.engines.test_parity import able

CPU = torch.device("cpu")


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [0, 1, 2]), (2, [1])])
def test_every_nth_block_recomputes_its_activations(every, expected):
    net = Net()
    calls = []
    for number, block in enumerate(net.blocks):
        inner = block.hidden
        inner.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    names = list(net.state_dict())
    change_forward(net, list(net.blocks), Options(activation_checkpointing=every), CPU)
    loss = net(torch.zeros(1, 12, dtype=torch.int64)).sum()
    calls.clear()
    loss.backward()
    assert sorted(calls) == expected
    with torch.no_grad():
        assert not net(torch.zeros(1, 12, dtype=torch.int64)).requires_grad
    assert list(net.state_dict()) == names


class Products(TorchDispatchMode):
    """Counts the matrix products with a bias; backward itself computes none."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.addmm.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("keeps", "recomputed"), [(False, 6), (True, 0)])
def test_selective_checkpointing_computes_no_product_again(keeps, recomputed):
    net = Net()
    options = Options(activation_checkpointing=1, keep_products=keeps)
    change_forward(net, list(net.blocks), options, CPU)
    loss = net(torch.zeros(1, 12, dtype=torch.int64)).sum()
    with Products() as products:
        loss.backward()
    assert products.count == recomputed


@pytest.mark.parametrize("keeps", [False, True])
def test_recomputation_has_the_same_dropout_and_updates_buffers_once(keeps):
    def run(every):
        torch.manual_seed(0)
        block = nn.Sequential(Block(), nn.Dropout(0.5))
        options = Options(activation_checkpointing=every, keep_products=keeps)
        change_forward(block, [block], options, CPU)
        x = torch.ones(1, 12, 16, requires_grad=True)
        block(x).sum().backward()
        return x.grad, block[0].calls

    (plain, calls), (recomputed, again) = run(0), run(1)
    assert torch.equal(plain, recomputed)
    assert calls == again == 1


def start_apart(world, engine_name):
    """The initial weights of ranks with different seeds."""
    torch.manual_seed(world.rank)
    net = Net()
    # Not row-major, as some libraries load weights.
    net.frozen.weight.data = net.frozen.weight.data.t().contiguous().t()
    with around(world, engine_name, net, spec(clip_norm=None, lr=0.1), net.blocks) as (engine, _):
        pieces = engine.state().pieces
        return [(p.name, p.start, p.data.tolist()) for p in pieces if p.kind == "weight"]


@able("ddp", "fsdp")
def test_all_ranks_start_from_the_weights_of_rank_zero(worlds, engine):
    alone = {name: data for name, _, data in worlds[1].run(start_apart, "local")[0]}
    for of_rank in worlds[2].run(start_apart, engine):
        assert len(of_rank) == len(alone)
        for name, start, data in of_rank:
            assert data == alone[name][start : start + len(data)], name


@pytest.mark.parametrize(("first", "recomputes"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.slow
def test_a_model_whose_compilation_fails_runs_without_it(monkeypatch, caplog, first, recomputes):
    """In its forward pass, or in the backward pass, before any gradient is there."""
    from torch._inductor import compile_fx

    compiled, graphs = compile_fx.compile_fx_inner, []

    def fail(graph, inputs, **options):
        graphs.append(graph)
        if len(graphs) >= first:
            raise RuntimeError("Failed to find C compiler.\nA second line")
        return compiled(graph, inputs, **options)

    torch._dynamo.reset()
    _, *others = compile_fx.compile_fx.__defaults__  # the first one is bound already
    monkeypatch.setattr(compile_fx.compile_fx, "__defaults__", (fail, *others))
    plain, net, tokens = Net(), Net(), torch.arange(12)[None] % 7
    net.load_state_dict(plain.state_dict())
    options = Options(compile=True, eager_on_failure=True, activation_checkpointing=recomputes)
    change_forward(net, list(net.blocks), options, CPU)
    losses = [module(tokens).sum() for module in (plain, net)]
    assert len(graphs) == first, "no graph after the first that fails"
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0])
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    (line,) = [
        each.getMessage() for each in caplog.records if each.name == "gearshift.engines.compilation"
    ]
    assert line.endswith("Failed to find C compiler.")
    torch._dynamo.reset()
