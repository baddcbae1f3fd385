"""Preparation of a model before an engine shards or wraps it: checkpointing, autocast, compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module, Parameter
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import (
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from engines.base import EngineError, OptimizerSpec, Options, World
from engines.deferred_init import is_deferred
from engines.precision import autocast_inside

_aten = torch.ops.aten
_PRODUCTS = [
    *(_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default),
    _aten._scaled_mm.default,
    *(_aten.convolution.default, _aten._scaled_dot_product_cudnn_attention.default),
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
]
# A graph would be recorded again for each new shape.
_REPLAYED = {"triton.cudagraphs": True, "triton.cudagraph_skip_dynamic_graphs": True}
_Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
"""Around the forward pass of a block, and around its recomputation."""


def change_forward(
    model: Module,
    blocks: Sequence[Module],
    options: Options,
    device: torch.device,
) -> None:
    """Add checkpointing, memory format, autocast and compilation to `model`; names stay unchanged.

    The order matters: recomputation must repeat autocast, and the compiler must see all of it. Each
    block is compiled alone: blocks of one kind share their graphs, and gradients are averaged while
    those of earlier blocks are computed. Outside of blocks, modules with `compiles_parts` are asked
    to compile what pays of them.
    """
    if options.precision == "fp8":
        from engines.fp8 import linears_in_fp8

        linears_in_fp8(blocks)
    checkpoint_blocks(blocks, options.activation_checkpointing, options.keep_products)
    if options.channels_last:
        model.forward = partial(_channels_last, model.forward)
    autocast_inside(model, options.precision, device)
    if options.compile:
        # Its splits of a graph would only cut a block, and fail at recomputation.
        torch._dynamo.config.optimize_ddp = False
        parts = [m for m in model.modules() if getattr(m, "compiles_parts", False)]
        for module in [*(blocks or [model]), *parts]:
            module.compile(**({"options": _REPLAYED} if options.graphs else {}))


def _channels_last(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # The inputs decide the format of convolutions; weights stay contiguous, so that every
    # engine can shard them and return them as flat views.
    args, kwargs = tree_map(_image_last, (args, kwargs))
    return forward(*args, **kwargs)


def _image_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value


def freeze_empty(model: Module) -> None:
    """Freeze the parameters without elements: there is nothing to train, shard or send."""
    for parameter in model.parameters():
        if not parameter.numel():
            parameter.requires_grad_(False)


def build_optimizer(
    spec: OptimizerSpec,
    named: Mapping[str, Parameter],
    build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
) -> torch.optim.Optimizer:
    """The optimizer that `build` makes of the trainable parameters, grouped in the spec's order.

    Groups without parameters are left out: sharded optimizers reject them. Raises EngineError if
    no parameter is trainable.
    """
    groups: list[dict[str, Any]] = [{"params": [], **options} for options in spec.options]
    for name, parameter in named.items():
        if parameter.requires_grad:
            groups[spec.group_of(name, parameter)]["params"].append(parameter)
    filled = [group for group in groups if group["params"]]
    if not filled:
        raise EngineError("the model has no trainable parameter; all are frozen")
    return build(filled)


def move_to_device(model: Module, world: World) -> None:
    """Move tensors that are not sharded yet to the device, with rank 0's values. Collective.

    Deferred ones have no values yet; on a CPU they take no memory before they are written.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        if isinstance(tensor, DTensor):
            continue
        if is_deferred(tensor):
            tensor.data = torch.empty(tensor.shape, dtype=tensor.dtype, device=world.device)
            continue
        tensor.data = tensor.detach().to(world.device).contiguous()
        if world.size > 1:
            dist.broadcast(tensor.detach(), 0)


def checkpoint_blocks(blocks: Sequence[Module], every: int, keep_products: bool = False) -> None:
    """Activation checkpointing of each `every`-th block; 0: of none.

    `keep_products`: the outputs of matrix products, convolutions and attention are kept. Only the
    instances' `forward` is replaced: no module is added, no name changes.
    """
    for block in blocks[every - 1 :: every] if every else ():
        block.forward = partial(_checkpointed, block, keep_products, block.forward)


def _checkpointed(
    block: Module, keep_products: bool, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # The compiler supports no contexts around the recomputation except its own.
    has_buffers = not torch.compiler.is_compiling() and any(True for _ in block.buffers())
    if has_buffers:
        kwargs["context_fn"] = partial(_keep_buffers, block, keep_products)
    elif keep_products:
        kwargs["context_fn"] = _keep_products
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _keep_products() -> _Contexts:
    return create_selective_checkpoint_contexts(_PRODUCTS)


def _keep_buffers(block: Module, keep_products: bool) -> _Contexts:
    forward, recomputation = _keep_products() if keep_products else noop_context_fn()
    return forward, _buffers_kept(block, recomputation)


@contextmanager
def _buffers_kept(block: Module, inner: AbstractContextManager[Any]) -> Iterator[None]:
    """Restore statistics and counters: the recomputation is not a second forward pass."""
    before = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        with inner:
            yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
