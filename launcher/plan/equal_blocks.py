"""Equal blocks of a model: one of them is traced, and what it did is recorded for the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Module

from gearshift.launcher.plan.storages import Kind, Storages

_PLAIN = (bool, int, float, str, type(None))
_NUMBER = "layer_idx"
"""The name that transformers gives the number of a block: it decides nothing in a step."""


class EqualBlocks:
    """Lets blocks return their input if they equal the block before them.

    The forward pass of a block lasts until that of the next one begins, and so does its backward
    pass: all that a block leaves to the next one is then freed as often as it is allocated. The
    first and the last block are always traced: what is around the blocks may differ there.
    """

    def __init__(self, blocks: Sequence[Module], storages: Storages) -> None:
        """Replaces the `forward` of the instances."""
        self._blocks = blocks
        self._storages = storages
        self._kinds = [_kind(block) for block in blocks]
        self._traced = 0
        """The number of the last block that was traced."""
        self._inputs: list[int] | None = None
        """Of that block, beside the output of the block before; None: it stands for itself only."""
        self._output: Callable[[], Tensor | None] = _nothing
        self._start = storages.mark()
        self._end = self._start
        """Of the forward or the backward pass of a block."""
        self._skipped: defaultdict[int, list[Module]] = defaultdict(list)
        """By the number of the traced block that they equal."""
        for number, block in enumerate(blocks):
            block.forward = partial(self._call, number, block.forward)

    def _call(self, number: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        storages = self._storages
        hidden: Any = args[0] if args else None
        inputs = [id(value) for value in (*args[1:], *kwargs.values())]
        follows = hidden is not None and hidden is self._output()
        is_last = number == len(self._blocks) - 1
        is_equal = self._kinds[number] == self._kinds[self._traced] and inputs == self._inputs
        if follows and is_equal and not is_last:
            skipped = self._skipped[self._traced]
            if not skipped:
                self._end = storages.mark()
            storages.repeat(self._start, self._end)
            storages.life(hidden).copies = 0  # the next block frees it
            skipped.append(self._blocks[number])
            return hidden
        self._traced = number
        self._inputs = inputs if follows and hidden.requires_grad else None
        self._start = storages.mark()
        output = forward(*args, **kwargs)
        self._output = _nothing
        if isinstance(output, Tensor) and output.requires_grad:
            self._output = ref(output)
            output.register_hook(partial(self._enter_backward, number))
        return output

    def _enter_backward(self, number: int, _: Tensor) -> None:
        """The backward pass of the block begins, and that of the one traced after it has ended."""
        storages = self._storages
        end = storages.mark()
        for block in self._skipped.pop(self._traced, ()):
            storages.repeat(self._start, end)
            _add_gradients(block, storages)
        self._traced = number
        self._start = storages.mark()
        storages.is_repeated = number in self._skipped


def _nothing() -> None:
    return None


def _add_gradients(block: Module, storages: Storages) -> None:
    """The gradients of a block that was not traced; that they are allocated is recorded already."""
    count = len(storages.changes)
    gradients = []
    for parameter in block.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
            gradients.append(parameter.grad)
    storages.label(gradients, Kind.GRADIENTS)
    del storages.changes[count:]


def _kind(block: Module) -> Any:
    """The same for blocks that differ in the values of their weights only."""
    settings = []
    for module in block.modules():
        for name, value in vars(module).items():
            if isinstance(value, _PLAIN) and name != _NUMBER:
                settings.append((name, value))
    weights = []
    for tensor in chain(block.parameters(), block.buffers()):
        weights.append((tensor.shape, tensor.dtype, tensor.requires_grad))
    checkpointed = getattr(block.forward, "func", None)
    return repr(block), settings, weights, checkpointed
