"""Compilation of the blocks of a model by torch.compile."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule
from torch.nn import Module

from gearshift.engines.base import Blocks, Options

if TYPE_CHECKING:
    from gearshift.engines.activation_offload import ActivationOffload

# A graph would be recorded again for each new shape.
_REPLAYED = {"triton.cudagraphs": True, "triton.cudagraph_skip_dynamic_graphs": True}
# What torch's compiler, triton and a C compiler may raise.
_COMPILATION_ERRORS = (
    RuntimeError,
    OSError,
    ImportError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    SubprocessError,
)
log = logging.getLogger(__name__)


def compile_modules(
    model: Module, blocks: Blocks, options: Options, offload: ActivationOffload | None
) -> None:
    """Compile each of `blocks` alone, or all of a `model` without any.

    Modules with `compiles_parts` outside of blocks are asked to compile what pays of them.
    """
    # Its splits of a graph would only cut a block, and fail at recomputation.
    torch._dynamo.config.optimize_ddp = False
    modules = list(blocks) or [model]
    parts = [m for m in model.modules() if getattr(m, "compiles_parts", False)]
    how: dict[str, Any] = {}
    if options.graphs:
        how["options"] = _REPLAYED
        # Without a first mark each block frees what the one before it returned, if no gradient
        # is computed. Later marks: of accumulate, and of an evaluation at each micro-batch.
        torch.compiler.cudagraph_mark_step_begin()
    if options.eager_on_failure:
        how = {"backend": partial(_compiled, modules, offload)}
    for module in [*modules, *parts]:
        module.compile(**how)


def _compiled(
    modules: Blocks, offload: ActivationOffload | None, graph: GraphModule, inputs: Sequence[Any]
) -> Any:
    """A backend of torch.compile that leaves `modules` as they are once a compilation failed.

    Each rank decides alone: both take the same operations. The backward pass is compiled with the
    forward pass, and not when gradients are already on their way (since torch 2.8).
    """
    from torch._dynamo.exc import SkipFrame
    from torch._functorch import config
    from torch._inductor.compile_fx import compile_fx

    if modules[0]._compiled_call_impl is not None:
        early = "force_non_lazy_backward_lowering"
        changes = {early: True} if hasattr(config, early) else {}
        with config.patch(changes):
            try:
                return compile_fx(graph, inputs)
            except torch.OutOfMemoryError:
                raise
            except _COMPILATION_ERRORS as error:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
        log.warning(f"torch.compile failed; the model runs without it: {reason}")
        for module in modules:
            module._compiled_call_impl = None
        if offload is not None:
            offload.wrap()
    raise SkipFrame("runs as it is")
