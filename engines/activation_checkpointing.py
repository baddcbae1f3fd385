"""Recomputing the activations of blocks in the backward pass instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn import Module
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(blocks: Sequence[Module], every: int) -> None:
    """Recompute the activations of each `every`-th block; 0: of none.

    Only the instances' `forward` is replaced: no module is put around them, no name changes.
    """
    for block in blocks[every - 1 :: every] if every else ():
        block.forward = partial(_checkpointed, block, block.forward)


def _checkpointed(block: Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    if torch.compiler.is_compiling() or not any(True for _ in block.buffers()):
        # The compiler knows no contexts around the recomputation but its own.
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    contexts = partial(_contexts, block)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(block: Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _buffers_kept(block)


@contextmanager
def _buffers_kept(block: Module) -> Iterator[None]:
    """Statistics and counters moved in the forward pass; recomputing it is not a second one."""
    before = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
