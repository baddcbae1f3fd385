"""Which parameters and buffers an engine can train, checked before it changes the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Module, Parameter
from torch.nn.parameter import is_lazy

from engines.base import Blocks, EngineError
from engines.catalog import ENGINES

_SHARDED = ("fsdp", "fsdp-offload")
# Engines that update the weights themselves, not copies in float32.
_WITHOUT_COPIES = frozenset({"local", "ddp", *_SHARDED, "oss"})
_HALVES = frozenset({torch.float16, torch.bfloat16})
_REAL = _HALVES | {torch.float32, torch.float64}
# The types of parameters that an engine trains side by side; of others, one type at a time.
_MIXED = {
    **dict.fromkeys(("local", "ddp", "zero3-offload"), _REAL),
    **dict.fromkeys(("zero1", "zero2", "zero2-offload"), _HALVES | {torch.float32}),
}


def with_dense_tensors(build: Callable[[], Module]) -> Module:
    """The model of `build`, with dense gradients: the optimizers of no engine take sparse ones.

    Raises EngineError for a parameter or buffer without a shape, or a sparse one.
    """
    model = build()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise EngineError(
                f"'{name}' has no shape before the first batch; call the model with a sample in "
                "build(), or give its module the number of inputs"
            )
        if tensor.layout is not torch.strided:
            raise EngineError(
                f"'{name}' is a sparse tensor, which no engine sends; keep it dense, and make the "
                "sparse one in forward()"
            )
    for module in model.modules():
        if isinstance(module, Embedding | EmbeddingBag):
            module.sparse = False
    return model


def check_parameters(model: Module, blocks: Blocks, engine: str, processes: int) -> None:
    """Raise EngineError for a parameter that `engine` does not train; it names those that do.

    Weights are float32 in most models; other types, and several of them, need some engines.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    if (reason := _reason(named, blocks, engine, processes)) is not None:
        others = [
            name if entry.processes is None else f"{name} with one process"
            for name, entry in ENGINES.items()
            if _reason(named, blocks, name, entry.processes or processes) is None
        ]
        raise EngineError(f"{reason}; engines that train it: {', '.join(others) or 'none'}")


def _reason(named: Mapping[str, Parameter], blocks: Blocks, engine: str, processes: int) -> str | None:
    """Why `engine` cannot train one of these parameters; None: it can."""
    for name, parameter in named.items():
        takes_complex = (*_SHARDED, "local", *["ddp"] * (processes == 1))
        if parameter.is_complex() and engine not in takes_complex:
            return f"engine {engine} does not train parameter '{name}', which is {_kind(parameter)}"
        if parameter.dtype is torch.float16 and engine in _WITHOUT_COPIES:
            return (
                f"parameter '{name}' is float16, which loses most updates; keep weights in float32 "
                "and compute with  --precision fp16"
            )
    for group in _joined(named, blocks, engine):
        widest = max(group.values(), key=lambda p: p.dtype is torch.float32, default=None)
        for name, parameter in group.items():
            assert widest is not None
            kinds = {widest.dtype, parameter.dtype}
            if len(kinds) > 1 and not kinds <= _MIXED.get(engine, frozenset()):
                return (
                    f"engine {engine} does not train parameter '{name}', which is "
                    f"{_kind(parameter)}, together with others that are {_kind(widest)}"
                )
    return None


def _joined(named: Mapping[str, Parameter], blocks: Blocks, engine: str) -> Iterator[Mapping[str, Parameter]]:
    if engine not in _SHARDED:
        real = {n: p for n, p in named.items() if not p.is_complex()}
        yield real
        return
    left = dict(named)
    for block in blocks:
        inside = {id(parameter) for parameter in block.parameters()}
        yield {n: left.pop(n) for n, p in named.items() if n in left and id(p) in inside}
    yield left


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
