"""FSDP keeps gathered weights only while they are needed, and shards within nodes."""

from dataclasses import replace

import pytest
import torch

from gearshift.engines.base import OptimizerSpec
from tests.engines.parity import TIME, Case, Net, around, distance, spec, train
from tests.engines.pool import Pool
from tests.engines.test_parity import able


def weights_alive(world, engine_name):
    """Bytes of block weights in 16 bits that a forward pass keeps for backward, and all of them."""
    torch.manual_seed(0)
    net = Net()
    weights = [p.numel() for block in net.blocks for p in block.parameters() if p.dim() == 2]
    sizes = {*weights} - {net.frozen.weight.numel()}  # which is outside the blocks
    kept = {}

    def keep(tensor):
        if tensor.dtype == torch.bfloat16 and tensor.dim() == 2 and tensor.numel() in sizes:
            kept[id(tensor)] = tensor
        return tensor

    with (
        around(
            world, engine_name, net, spec(clip_norm=None, lr=0.1), net.blocks, precision="bf16"
        ) as (
            _,
            module,
        ),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        module(torch.arange(3 * TIME).view(3, TIME)).sum()
        alive = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept.values()}
    return sum(alive.values()), 2 * sum(size for size in weights if size in sizes)


@able("fsdp")
def test_no_gathered_weight_in_16_bits_stays_alive_until_backward(worlds, engine):
    alive, everything = worlds[2].run(weights_alive, "ddp")[0]
    assert alive == everything  # autocast keeps a copy of each weight
    assert worlds[2].run(weights_alive, engine)[0][0] == 0


SMALL = 2.0**-10
"""Beside 1 it is lost in bf16, whose numbers have eight bits."""
SMALL_GRADIENTS = [4 * (1 + SMALL), 4 * (1 + SMALL) / 2]


def norm_of_small_gradients(world, engine_name):
    """The norms of a gradient in bf16 whose parts, over micro-batches or ranks, are 1 and SMALL.

    Both ranks have 1 and then SMALL in the first step; in the second one each has one of them.
    """
    net, ones = torch.nn.Linear(4, 4, bias=False), torch.ones(1, 4)
    descent = OptimizerSpec(
        [{}], lambda *_: 0, lambda groups: torch.optim.SGD(groups, lr=0.0), None
    )
    norms = []
    with around(world, engine_name, net, descent, precision="bf16", accumulation=2) as (
        engine,
        module,
    ):
        for first, second in ((1.0, SMALL), (0.0, (1.0, SMALL)[world.rank])):
            for number, factor in enumerate((first, second)):
                with engine.accumulate(last=number == 1):
                    engine.backward((module(ones) * factor).sum())
            norms.append(engine.step().norm.item())
    return norms


@able("fsdp")
def test_gradients_of_16_bit_weights_are_added_and_averaged_in_fp32(worlds, engine):
    assert (
        worlds[2].run(norm_of_small_gradients, engine)
        == [pytest.approx(SMALL_GRADIENTS, rel=1e-6)] * 2
    )


@pytest.mark.slow
@able("fsdp")
def test_shards_within_each_of_two_nodes_train_as_shards_over_all_ranks(engine):
    case, four_ranks = Case(engine, steps=3, precision="fp16"), Pool(4)
    plain, hybrid = (four_ranks.run(train, replace(case, nodes=nodes)) for nodes in (None, 2))
    four_ranks.close()
    assert max(distance(hybrid, plain).values()) < 1e-4  # `joined` compares the two replicas
    for count, outcomes in ((4, plain), (2, hybrid)):
        share = sum(len(data) for kind, _, _, data, _ in outcomes[0].pieces if kind == "exp_avg")
        trained = sum(p.numel() for p in Net().parameters() if p.requires_grad)
        assert share == pytest.approx(trained / count, rel=0.1)
