"""Gradient accumulation: unused layers, discarded gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from engines.base import Options, World
from engines.catalog import build_engine
from tests.engines.parity import TIME, Case, Net, one_step, options, spec
from tests.engines.pool import Pool, RankFailed
from tests.engines.test_parity import able, all_of_torch

TOKENS = torch.arange(2 * TIME).view(2, TIME)


class Fork(nn.Module):
    """Two layers; the second one is optional."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, all_of_it: bool) -> Tensor:
        x = self.always(x)
        return self.sometimes(x) if all_of_it else x


def fork(
    world: World, engine_name: str, windows: list[list[bool]]
) -> tuple[list[float], list[str]]:
    """Gradient norms of steps with and without an unused layer, and the parameters named."""
    torch.manual_seed(0)
    model = Fork()
    engine = build_engine(engine_name, world, options(Case(engine_name), world))
    try:
        module = engine.prepare(model, spec(None, lr=0.1), [model.always, model.sometimes])
        norms = []
        for window in windows:
            for number, all_of_it in enumerate(window, start=1):
                with engine.accumulate(last=number == len(window)):
                    x = torch.ones(2, 4) + world.rank
                    engine.backward(module(x, all_of_it).square().sum())
            norms.append(engine.step().norm.item())
        return norms, list(engine.without_gradient)
    finally:
        engine.close()


CHANGING = pytest.mark.parametrize(
    "windows",
    [
        [[False], [True], [False], [True]],
        [[False, False], [True, True], [False, False]],
        [[True, False], [True, True], [True, False]],
        [[False, True], [True, False], [False, True]],
    ],
    ids=["alternate steps", "a step without", "not in the last pass", "now here, now there"],
)


@CHANGING
@able("ddp", "oss", "fsdp", "fsdp-offload")
def test_an_unused_layer_gets_no_gradient_of_an_earlier_step(
    worlds: dict[int, Pool], engine: str, windows: list[list[bool]]
) -> None:
    plain = worlds[2].run(fork, "local", windows)[0][0]
    for norms, _ in worlds[2].run(fork, engine, windows):
        assert norms == pytest.approx(plain, rel=1e-5)


@all_of_torch
def test_parameters_without_gradient_are_named_after_the_first_step(
    worlds: dict[int, Pool], engine: str
) -> None:
    for _, without_gradient in worlds[2].run(fork, engine, [[False], [True]]):
        assert without_gradient == ["sometimes.weight", "sometimes.bias"]


@able("ddp", "oss")
def test_a_layer_unused_after_the_first_step_ends_the_run_before_the_update(
    worlds: dict[int, Pool], engine: str
) -> None:
    with pytest.raises(RankFailed, match="EngineError: a step left out parameters that the first"):
        worlds[2].run(fork, engine, [[True], [False]])


def step_after_discarding(world: World, case: Case, discards: bool) -> tuple[tuple, list[Tensor]]:
    """The second step and the state after it, with or without discarded gradients before."""
    torch.manual_seed(0)
    model = Net()
    engine = build_engine(case.engine, world, options(case, world))
    try:
        module = engine.prepare(model, spec(case.clip_norm, case.lr), list(model.blocks))
        one_step(world, engine, module, case, step=1)
        module.eval()  # buffers stay as they are
        if discards:
            for last in (False, True):
                with engine.accumulate(last):
                    engine.backward(1e3 * module(TOKENS).square().mean())
            engine.discard()
        module.train()
        taken = one_step(world, engine, module, case, step=2)
        return taken, [p.data.clone() for p in engine.state().pieces]
    finally:
        engine.close()


@all_of_torch
def test_discarded_gradients_leave_no_trace(worlds: dict[int, Pool], engine: str) -> None:
    plain = worlds[2].run(step_after_discarding, Case(engine), False)
    discarded = worlds[2].run(step_after_discarding, Case(engine), True)
    for (taken, pieces), (taken_after, pieces_after) in zip(plain, discarded, strict=True):
        assert taken == taken_after
        assert all(torch.equal(*pair) for pair in zip(pieces, pieces_after, strict=True))


class Casts(TorchDispatchMode):
    """Counts casts to bf16."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.count += kwargs.get("dtype") == torch.bfloat16
        return func(*args, **kwargs)


def casts_of_two_steps(world: World, engine_name: str, micro_batches: int) -> int:
    """The casts to bf16 in two steps of so many micro-batches; an error follows each step."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    engine = build_engine(engine_name, world, Options(precision="bf16"))
    module = engine.prepare(model, spec(None, lr=0.1), [])
    with Casts() as casts:
        for _ in range(2):
            for number in range(1, micro_batches + 1):
                with engine.accumulate(last=number == micro_batches):
                    engine.backward(module(torch.ones(2, 4)).sum())
            engine.step()
            with pytest.raises(MemoryError), engine.accumulate(last=False):
                raise MemoryError  # the next step begins with new casts
            engine.discard()
    engine.close()
    return casts.count


@pytest.mark.parametrize("engine", ["local", "ddp"])
def test_weights_are_cast_once_per_step_and_inputs_for_each_micro_batch(worlds, engine):
    one, three = (worlds[2].run(casts_of_two_steps, engine, count)[0] for count in (1, 3))
    weights = 2 * 2  # weight and bias in two steps
    assert three - weights == 3 * (one - weights) > 0
