"""Parameters that a rank or a step does not use: no gradient, or an error that names them."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed import HashStore

from gearshift.engines import used_parameters
from gearshift.engines.base import EngineError, OptimizerSpec
from gearshift.engines.used_parameters import UsedParameters
from tests.engines.parity import around
from tests.engines.pool import RankFailed
from tests.engines.test_parity import able

A, B, BOTH, NONE = "a", "b", "ab", ""


class Branches(nn.Module):
    """Experts that a batch chooses, and a layer that all use. `wide`: `b` has another shape."""

    def __init__(self, wide=False, adapters=False):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4)) if wide else nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)
        if adapters:
            for layer in (self.a, self.b):
                layer.requires_grad_(False)
                layer.adapter = nn.Linear(4, 4, bias=False)

    def forward(self, x, used):
        for name in used:
            layer = getattr(self, name)
            x = layer(x) + (layer.adapter(x) if hasattr(layer, "adapter") else 0)
        return self.out(x)


class Block(nn.Module):
    """Branches within one block."""

    def __init__(self, inner=Branches):
        super().__init__()
        self.block, self.last = inner(), nn.Linear(2, 2)

    def forward(self, x, used):
        return self.last(self.block(x, used))


class Functional(Branches):
    """Uses weights without the forward pass of their modules."""

    def forward(self, x, used):
        for name in used:
            x = x @ getattr(self, name).weight
        return self.out(x)


DESCENT = OptimizerSpec([{}], lambda *_: 0, lambda groups: torch.optim.SGD(groups, lr=0.05), None)
"""To it a gradient of zero and none are the same."""


def train(world, name, precision, steps, build=Branches, **options):
    """The norm of each of `steps`, whose ranks say what their micro-batches use, and what had no gradient.

    Raises EngineError.
    """
    torch.manual_seed(0)
    net, count = build(**options), len(steps[0][0])
    given = {"precision": precision, "accumulation": count}
    with around(world, name, net, DESCENT, net.children(), **given) as (engine, module):
        draw, norms = torch.Generator().manual_seed(world.rank), []
        for ranks in steps:
            for number, used in enumerate(ranks[world.rank]):
                x = torch.randn(3, 4, generator=draw)
                with engine.accumulate(last=number == count - 1):
                    engine.backward(module(x, used).square().mean())
            norms.append(engine.step().norm.item())
            assert all(parameter.grad is None for parameter in net.parameters())
        return norms, sorted(engine.without_gradient)


CASES = {
    "a branch by data": ("zero1", "fp32", [[[A], [B]]], {}),
    "another shape": ("fsdp", "fp32", [[[A], [B]]], {"wide": True}),
    "another shape, zero2": ("zero2", "bf16", [[[A], [B]]], {"wide": True}),
    "a rank that uses none": ("zero2-offload", "fp32", [[[A], [NONE]]], {}),
    "none, fsdp in 16 bits": ("fsdp", "bf16", [[[A], [NONE]]], {}),
    "the first micro-batch only": ("fsdp", "fp32", [[[A, BOTH], [B, BOTH]]], {}),
    "first only, zero": ("zero1", "bf16", [[[A, BOTH], [B, BOTH]]], {}),
    "another order": ("fsdp-offload", "fp32", [[["ab"], ["ba"]]], {}),
    "experts of a block": ("fsdp", "bf16", [[[A], [B]]], {"build": Block}),
    "experts, zero3": ("zero3", "fp32", [[[A], [B]]], {"build": Block}),
    "a rank that uses none, zero3": ("zero3-offload", "bf16", [[[A], [NONE]]], {}),
    "adapters": ("zero2", "fp32", [[[A], [B]]], {"adapters": True}),
    "no forward pass": ("zero2", "fp32", [[[A], [B]]], {"build": Functional}),
    "no forward pass, fsdp": ("fsdp", "fp32", [[[A], [B]]], {"build": Block, "inner": Functional}),
}


def error_of(world, name, precision, steps, options):
    """The error of each rank: none of them waits for another one."""
    with pytest.raises(EngineError) as error:
        train(world, name, precision, steps, **options)
    return str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_each_rank_raises_with_a_parameter_both_ranks_and_an_engine(worlds, case):
    for error in worlds[2].run(error_of, *CASES[case]):
        assert "rank 0" in error and "rank 1" in error and "weight" in error
        assert error.endswith("ddp")


@pytest.mark.parametrize("name", ["zero1", "zero3", "fsdp"])
def test_a_rank_that_leaves_what_all_used_before_raises_while_others_wait(worlds, name):
    """Rank 0 uses what it used before, and waits for rank 1 in a collective."""
    with pytest.raises(RankFailed, match=r"rank 0 uses a\.weight where rank 1 uses out\.weight"):
        worlds[2].run(train, name, "fp32", [[[A], [A]], [[A], [A]], [[A], [NONE]]])


def take_step(check, net, passes):
    """A step whose passes use these branches, as an engine that gathers nothing takes it."""
    for number, branches in enumerate(passes):
        with check.micro_batch(last=number == len(passes) - 1):
            loss = net(torch.ones(1, 4), branches).sum()
            check.end_forward()
            loss.backward()
            check.add_gradients(p for p in net.parameters() if p.grad is not None)
    check.end_segment()
    net.zero_grad()


def checked(steps):
    """Of each rank, a thread with these steps: the keys of the store after each step, or the error."""
    store = HashStore()

    def run(rank):
        world, net, keys = (
            SimpleNamespace(rank=rank, size=2, store=store, check_peers=int),
            Branches(),
            [],
        )
        check = UsedParameters(world, net, gathers=lambda module: False)
        try:
            for ranks in steps:
                take_step(check, net, ranks[rank])
                keys.append(store.num_keys())
        except EngineError as error:
            return str(error)
        finally:
            check.close()
        return keys

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


def test_equal_steps_send_nothing():
    first, second = checked([[[BOTH, A]] * 2] * 4)
    assert first[1:] == second[1:] == [first[0]] * 3


@pytest.mark.parametrize(
    ("last", "names"),
    [
        ([[A], [B]], ("a.weight", "b.weight")),
        ([[A, A], [A, B]], ("a.weight", "b.weight")),
        ([[BOTH], [A]], ("b.weight", "out.weight")),
        ([["ba"], ["ab"]], ("b.weight", "a.weight")),
    ],
    ids=str,
)
def test_both_ranks_name_what_only_one_uses(monkeypatch, last, names):
    """Those of a forward pass, in a step after others that were equal."""
    monkeypatch.setattr(used_parameters, "_LOOK_S", 0.1)
    first, second = checked([*[[[BOTH, A]] * 2] * 2, last])
    assert first == second
    assert f"rank 0 uses {names[0]} where rank 1 uses {names[1]};" in first


def test_a_module_may_be_called_more_often_by_a_rank():
    """Its gradients are summed over its calls before ranks exchange them."""
    assert all(isinstance(keys, list) for keys in checked([[["aa", "ab"], ["a", "abba"]]]))


EVEN = [[[A, B]] * 2, [[B, A]] * 2, [[BOTH, NONE]] * 2, [[NONE, B]] * 2]
# A step without the layer, one not in its last pass, and one now here, now there.
WINDOWS = [
    (A, A),
    (BOTH, BOTH),
    (A, A),
    (BOTH, A),
    (BOTH, BOTH),
    (BOTH, A),
    (A, BOTH),
    (BOTH, A),
    (A, A),
]
CHANGING = [[[*window]] * 2 for window in WINDOWS]
# DeepSpeed keeps gradients of steps of one pass, of fp32 weights and of the host elsewhere.
ALTERNATING = [[[window]] * 2 for window in (A, BOTH, A, BOTH)]
UNEVEN = [[[BOTH], [BOTH]], [[A], [B]], [[A], [A]], [[NONE], [B]], [[BOTH], [BOTH]]]


@able("ddp", "oss", "fsdp", "zero1", "zero2", "zero3", "zero2-offload", "zero3-offload")
def test_steps_may_use_other_parameters_and_keep_no_gradient_of_an_earlier_one(worlds, engine):
    """Also in part of the micro-batches; with replicas, ranks also use different ones."""
    is_replicated = engine in ("ddp", "oss")
    own = [UNEVEN] if is_replicated else [ALTERNATING] if engine.endswith("offload") else [EVEN]
    for steps in (CHANGING, *own):
        for precision, rel in (("fp32", 1e-5), ("bf16", 0.02))[: 2 - is_replicated]:
            expected, idle = worlds[2].run(train, "local", precision, steps)[0]
            assert idle == (
                ["b.bias", "b.weight"] if steps[0][0][0] == A and steps is not EVEN else []
            )
            for norms, without_gradient in worlds[2].run(train, engine, precision, steps):
                assert norms == pytest.approx(expected, rel=rel), (steps, precision)
                assert without_gradient == idle
