"""Work of the ranks under the zero engines, for the tests; each function is collective."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from engines.base import Engine, EngineError, State, World
from engines.catalog import build_engine
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


def training_flags(world: World, case: Case) -> list[tuple[bool, bool]]:
    """`training` of the prepared module and of the model, in evaluation and after it."""
    with prepared(world, case) as (_, module):
        inner: Any = module.module
        module.eval()
        flags = [(module.training, inner.training)]
        assert module.train() is module
        return [*flags, (module.training, inner.training)]
