"""Preparation of a model before an engine shards or wraps it: checkpointing, autocast, compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from gearshift.engines.base import Blocks, EngineError, OptimizerSpec, Options, World
from gearshift.engines.parameters import is_sharded
from gearshift.engines.precision import autocast_inside
from gearshift.engines.state import broadcast, is_deferred

if TYPE_CHECKING:
    from gearshift.engines.activation_offload import ActivationOffload

_PRODUCTS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::_scaled_mm",
    "aten::convolution",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "torch_attn::_varlen_attn",
}
# Around the forward pass of a block, and around its recomputation.
_Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def change_forward(
    model: Module, blocks: Blocks, options: Options, device: torch.device
) -> ActivationOffload | None:
    """Add checkpointing, memory format, autocast, compilation and offload; names stay unchanged.

    The order matters: recomputation must repeat autocast, and the compiler must see all of it. Each
    block is compiled alone: blocks of one kind share their graphs, and gradients are averaged while
    those of earlier blocks are computed. Outside of blocks, modules with `compiles_parts` are asked
    to compile what pays of them. Returns what moves activations of the blocks; None: they stay.
    """
    if options.precision == "fp8":
        from gearshift.engines.fp8 import linears_in_fp8

        linears_in_fp8(blocks)
    offload = None
    if options.activation_offload:
        from gearshift.engines.activation_offload import ActivationOffload

        offload = ActivationOffload(model, blocks, device)
    contexts = noop_context_fn
    if options.keep_products:
        contexts = partial(create_selective_checkpoint_contexts, _product_policy)
    checkpoint_blocks(blocks, options.activation_checkpointing, contexts)
    if options.channels_last:
        model.forward = partial(_channels_last, model.forward)
    autocast_inside(model, options.precision, device)
    if options.compile:
        from gearshift.engines.compilation import compile_modules

        compile_modules(model, blocks, options, offload)
    if offload is not None:
        offload.wrap()
    return offload


def _channels_last(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # The inputs decide the format of convolutions. Weights stay as the model stores them, so that
    # every engine can shard them and return them as flat views; see models/event_seg/network.py.
    def image_last(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
            return value.contiguous(memory_format=torch.channels_last)
        return value

    args, kwargs = tree_map(image_last, (args, kwargs))
    return forward(*args, **kwargs)


def tune_convolutions() -> Callable[[], None]:
    """Let cuDNN time its kernels for each new shape; returns a function that restores the flag.

    For images of one size. Where algorithms must be deterministic, nothing changes.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = before or not torch.are_deterministic_algorithms_enabled()
    return partial(setattr, cudnn, "benchmark", before)


def freeze_empty(model: Module) -> None:
    """Freeze the parameters without elements: there is nothing to train, shard or send."""
    for parameter in model.parameters():
        if not parameter.numel():
            parameter.requires_grad_(False)


def build_optimizer(spec: OptimizerSpec, named: Mapping[str, Parameter]) -> Optimizer:
    """The optimizer of the trainable parameters, grouped in the spec's order.

    Groups without parameters are left out: sharded optimizers reject them. Raises EngineError if
    no parameter is trainable.
    """
    groups = [{"params": [], **options} for options in spec.options]
    for name, parameter in named.items():
        if parameter.requires_grad:
            groups[spec.group_of(name, parameter)]["params"].append(parameter)
    filled = [group for group in groups if group["params"]]
    if not filled:
        raise EngineError("the model has no trainable parameter; all are frozen")
    return spec.build(filled)


def move_to_device(model: Module, world: World) -> None:
    """Move tensors that are not sharded yet to the device, with rank 0's values. Collective.

    Deferred ones have no values yet; on a CPU they take no memory before they are written.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        if is_sharded(tensor):
            continue
        if is_deferred(tensor):
            tensor.data = torch.empty(tensor.shape, dtype=tensor.dtype, device=world.device)
            continue
        if tensor.device != world.device or not tensor.is_contiguous():
            tensor.data = tensor.detach().to(world.device).contiguous()
        if world.size > 1:
            broadcast(tensor.detach())


def checkpoint_blocks(
    blocks: Blocks, every: int, contexts: Callable[[], _Contexts] = noop_context_fn
) -> None:
    """Activation checkpointing of each `every`-th block; 0: of none.

    `contexts` keep the outputs of some operators. Only the instances' `forward` is
    replaced: no module is added, no name changes.
    """
    if every == 0:
        return
    for block in blocks[every - 1 :: every]:
        block.forward = partial(_checkpointed, block, contexts, block.forward)


def _checkpointed(
    block: Module,
    contexts: Callable[[], _Contexts],
    forward: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # The compiler supports no contexts around the recomputation except its own.
    if not torch.compiler.is_compiling() and list(block.buffers()):
        contexts = partial(_keep_buffers, block, contexts)
    if contexts is not noop_context_fn:
        kwargs["context_fn"] = contexts
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _product_policy(_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operator.name() in _PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _keep_buffers(block: Module, contexts: Callable[[], _Contexts]) -> _Contexts:
    forward, recomputation = contexts()
    return forward, _with_buffers(block, recomputation)


@contextmanager
def _with_buffers(block: Module, inner: AbstractContextManager[Any]) -> Iterator[None]:
    """Restore statistics and counters: the recomputation is not a second forward pass."""
    before = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        with inner:
            yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
