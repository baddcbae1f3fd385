"""FSDP keeps tied weights tied, and gathered weights only while they are needed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engines.base import Options
from engines.catalog import build_engine
from tests.engines.parity import TIME, Case, Net, distance, spec, train
from tests.engines.pool import Pool
from tests.engines.test_parity import able


class Pair(nn.Module):
    """Two blocks that share a weight, and one that shares none."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.blocks[2].weight = self.blocks[0].weight

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def train_tied(world, engine_name):
    torch.manual_seed(0)
    pair = Pair()
    engine = build_engine(engine_name, world, Options())
    module = engine.prepare(pair, spec(clip_norm=None, lr=0.1), list(pair.blocks))
    outputs = []
    for _ in range(3):
        with engine.accumulate(last=True):
            output = module(torch.ones(2, 3))
            engine.backward(output.square().sum())
        outputs.append(output.flatten().tolist())
        engine.step()
    engine.close()
    return outputs


@able("fsdp")
def test_weights_tied_across_blocks_train_as_under_local(worlds, engine):
    plain = worlds[2].run(train_tied, "local")[0]
    for sharded in worlds[2].run(train_tied, engine):
        assert sharded == [pytest.approx(output, rel=1e-5) for output in plain]


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

    engine = build_engine(engine_name, world, Options(precision="bf16"))
    module = engine.prepare(net, spec(clip_norm=None, lr=0.1), list(net.blocks))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.arange(3 * TIME).view(3, TIME)).sum()
    alive = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept.values()}
    engine.close()
    return sum(alive.values()), 2 * sum(size for size in weights if size in sizes)


@able("fsdp")
def test_no_gathered_weight_in_16_bits_stays_alive_until_backward(worlds, engine):
    alive, everything = worlds[2].run(weights_alive, "ddp")[0]
    assert alive == everything  # autocast keeps a copy of each weight
    assert worlds[2].run(weights_alive, engine)[0][0] == 0


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
