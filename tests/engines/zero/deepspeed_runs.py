"""Work of the ranks under the zero engines, for the tests; each function is collective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from engines.base import Engine, EngineError, OptimizerSpec, Options, Precision, State, World
from engines.catalog import build_engine
from engines.zero.config_file import shipped
from engines.zero.state import ZeroState
from tests.engines.parity import TIME, Case, Net, one_step, options, spec

TOKENS = torch.arange(2 * TIME).view(2, TIME)


@contextmanager
def prepared(
    world: World, case: Case, zero: Mapping[str, Any] | None = None, **changes: Any
) -> Iterator[tuple[Engine, nn.Module]]:
    """The engine of `case` and its `Net`; `zero` and `changes` override options."""
    chosen = options(case, world)
    layout = {**chosen.ds_config["zero_optimization"], **(zero or {})}
    chosen = replace(chosen, ds_config={"zero_optimization": layout}, **changes)
    torch.manual_seed(0)
    engine = build_engine(case.engine, world, chosen)
    try:
        model = Net()
        yield engine, engine.prepare(model, spec(case.clip_norm, case.lr), list(model.blocks))
    finally:
        engine.close()


def drawn(kind: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """Values that are unique to a tensor; positive, like second moments."""
    seed = sum(f"{kind} {name}".encode())
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def overwrite(state: State) -> None:
    """Write unique values into the pieces of each tensor."""
    for piece in state.pieces:
        full = drawn(piece.kind, piece.name, state.shapes[piece.name]).view(-1)
        piece.data.copy_(full[piece.start : piece.start + piece.data.numel()])


def outputs_after_writing(world: World, case: Case) -> tuple[Tensor, Tensor]:
    """Outputs after other weights were written into the pieces, and those of a plain model."""
    with prepared(world, case) as (engine, module):
        one_step(world, engine, module, case, step=1)
        state = engine.state()
        overwrite(state)
        engine.refresh()
        plain = Net()
        weights = {name: drawn("weight", name, shape) for name, shape in state.shapes.items()}
        weights["head.weight"] = weights["embedding.weight"]
        plain.load_state_dict({**weights, **state.buffers})
        if case.precision == "bf16":
            for parameter in plain.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
        module.eval()
        plain.eval()
        with torch.no_grad():
            return module(TOKENS), plain(TOKENS).float()


def moments_after_writing(world: World, case: Case) -> list[tuple[str, Tensor, Tensor]]:
    """First moments after a step without gradient, and those written before it."""
    with prepared(world, case) as (engine, module):
        overwrite(engine.state())
        engine.refresh()
        written = [p.data.clone() for p in engine.state().pieces if p.kind == "exp_avg"]
        with engine.accumulate(last=True):
            engine.backward(module(TOKENS).sum() * 0.0)
        engine.step()
        moved = [p for p in engine.state().pieces if p.kind == "exp_avg"]
        return [(p.name, p.data.clone(), old) for p, old in zip(moved, written, strict=True)]


def step_after_discarding(world: World, case: Case, passes: int) -> tuple[Any, list[Tensor]]:
    """The second step and the state after it; before it `passes` of two were discarded."""
    with prepared(world, case) as (engine, module):
        one_step(world, engine, module, case, step=1)
        module.eval()  # buffers stay as they are
        for number in range(1, passes + 1):
            with engine.accumulate(last=number == 2):
                engine.backward(1e3 * module(TOKENS).square().mean())
        if passes:
            engine.discard()
        module.train()
        taken = one_step(world, engine, module, case, step=2)
        return taken, [p.data.clone() for p in engine.state().pieces]


def three_steps(world: World, case: Case, zero: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Losses and norms with `zero` overriding the engine's partitioning."""
    with prepared(world, case, zero) as (engine, module):
        return [one_step(world, engine, module, case, step)[:2] for step in (1, 2, 3)]


def threads(world: World, case: Case, count: int | None) -> tuple[int, int, int]:
    """Threads before the engine, with it, and after it."""
    before = torch.get_num_threads()
    with prepared(world, case, offload_threads=count):
        during = torch.get_num_threads()
    return before, during, torch.get_num_threads()


def check_after_moving_masters(world: World, case: Case) -> str:
    """The error if the fp32 weights differ from the working weights."""
    with prepared(world, case) as (engine, module):
        overwrite(engine.state())
        try:
            ZeroState(module.optimizer, module.module, world, {}).check()
        except EngineError as error:
            return str(error)
    return ""


def rejection(world: World, case: Case, zero: Mapping[str, Any]) -> str:
    """The error for a config that DeepSpeed rejects."""
    try:
        with prepared(world, case, zero):
            return ""
    except EngineError as error:
        return str(error)


class Fork(nn.Module):
    """Two layers; the second one is optional."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, both: bool) -> Tensor:  # [batch, 4] -> [batch, 4]
        x = self.always(x)
        return self.sometimes(x) if both else x


def fork(
    world: World, name: str, windows: list[list[bool]], precision: Precision = "fp32"
) -> tuple[list[float], list[str]]:
    """Gradient norms of a step for each window, whose passes use both layers or the first only.

    Plain gradient descent: a gradient of zero and none are the same to it.
    """
    descent = OptimizerSpec(
        [{}], lambda name, p: 0, lambda groups: torch.optim.SGD(groups, lr=0.05), None
    )
    config = shipped(f"{name}.json") if name.startswith("zero") else {}
    chosen = Options(precision, ds_config=config, accumulation=max(map(len, windows)))
    engine = build_engine(name, world, chosen)
    torch.manual_seed(0)
    try:
        module = engine.prepare(Fork(), descent, [])
        draw = torch.Generator().manual_seed(world.rank)
        norms = []
        for window in windows:
            for number, both in enumerate(window, start=1):
                with engine.accumulate(last=number == len(window)):
                    outputs = module(torch.randn(3, 4, generator=draw), both)
                    engine.backward(outputs.square().sum())
            norms.append(engine.step().norm.item())
        return norms, list(engine.without_gradient)
    finally:
        engine.close()


def training_flags(world: World, case: Case) -> list[tuple[bool, bool]]:
    """`training` of the prepared module and of the model, in evaluation and after it."""
    with prepared(world, case) as (_, module):
        inner: Any = module.module
        module.eval()
        flags = [(module.training, inner.training)]
        assert module.train() is module
        return [*flags, (module.training, inner.training)]
