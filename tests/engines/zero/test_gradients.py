"""Gradients of one update only, in fp32: of passes that reach other parameters, or are discarded."""

import pytest
import torch

from gearshift.engines.base import OptimizerSpec
from tests.engines.parity import around
from tests.engines.test_fsdp import SMALL_GRADIENTS, norm_of_small_gradients
from tests.engines.test_parity import able
from tests.engines.test_used_parameters import BOTH, NONE, A, Branches

DESCENT = OptimizerSpec([{}], lambda *_: 0, lambda groups: torch.optim.SGD(groups, lr=0.05), None)
"""To it a gradient of zero and none are the same."""
# What the passes of an update use, and whether they are discarded, in an order in which the gradients
# of each layer are there before those that lack them.
UPDATES = [
    ([BOTH, BOTH], False),
    ([A, BOTH], False),
    ([BOTH, BOTH], True),
    ([A, A], False),
    ([BOTH, A], False),
    ([BOTH], True),
    ([BOTH, NONE], False),
    ([NONE, NONE], False),
    ([BOTH, BOTH], False),
]


def norms_of_updates(world, name, precision, updates):
    """The gradient norm of each update that is taken, and the weights that the last one leaves."""
    torch.manual_seed(0)
    net, norms = Branches(), []
    around_net = around(
        world, name, net, DESCENT, net.children(), precision=precision, accumulation=2
    )
    with around_net as (engine, module):
        for number, (passes, is_discarded) in enumerate(updates):
            draw = torch.Generator().manual_seed(number)
            for index, used in enumerate(passes):
                with engine.accumulate(last=index == 1):
                    engine.backward(module(torch.randn(3, 4, generator=draw), used).square().mean())
            if is_discarded:
                engine.discard()
            else:
                norms.append(engine.step().norm.item())
        pieces = sorted(engine.state().pieces, key=lambda piece: piece.name)
        return norms, torch.cat([piece.data.clone() for piece in pieces if piece.kind == "weight"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@able("zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
def test_no_gradient_of_another_pass_or_update_is_added(worlds, engine, precision):
    ((norms, weights),) = worlds[1].run(norms_of_updates, "local", precision, UPDATES)
    ((found, found_weights),) = worlds[1].run(norms_of_updates, engine, precision, UPDATES)
    # In bf16 these engines round weights, where local rounds products.
    rel = 1e-5 if precision == "fp32" else 0.03
    assert found == pytest.approx(norms, rel=rel)
    assert (found_weights - weights).norm() < rel * weights.norm()


@able("zero1", "zero2-offload", "zero3")
def test_gradients_of_16_bit_weights_are_added_and_averaged_in_fp32(worlds, engine):
    assert (
        worlds[2].run(norm_of_small_gradients, engine)
        == [pytest.approx(SMALL_GRADIENTS, rel=1e-6)] * 2
    )
