"""A check of what forward passes do to parameters, in the first steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.utils.hooks import RemovableHandle

from gearshift.engines.base import EngineError, Options, World
from gearshift.engines.catalog import Entry
from gearshift.engines.parameters import engines_that
from gearshift.engines.precision import DTYPES
from gearshift.engines.state import stored

STEPS = 2
"""Steps that are checked: a change that follows an update is seen in the second one."""
_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 2**22
"""Elements that are summed at once: each is copied to 8 bytes."""
_MOVED = 2


class WeightChanges:
    """Raises EngineError for a forward pass that changes a parameter in a way its engine loses.

    An engine that updates copies overwrites a change of the weights, one that gathers them drops
    it with the gathered tensor, and replicas stay equal only if each rank changes them alike. So
    before an update the memory in which the engine expects a parameter has not moved, weights equal
    their copies, gathered weights their shards, and replicas those of other ranks.
    Collective: `end_step`.
    """

    def __init__(
        self,
        world: World,
        options: Options,
        parameters: Mapping[str, Parameter],
        *,
        pinned: Collection[str] = (),
        copies: Callable[[], Iterable[tuple[str, Tensor, Tensor]]] = tuple,
        shard_of: Callable[[Parameter], Tensor | None] = lambda parameter: None,
        replicas: int = 1,
    ):
        """Call when the parameters have their final memory.

        `pinned`: parameters that the engine expects there. `copies`: names, parts of the weights,
        and the copies that overwrite them. `shard_of`: the shard on this rank; None: the parameter
        is whole. `replicas`: how many ranks hold each shard.
        """
        self._world = world
        self._parameters = dict(parameters)
        self._copies = copies
        self._shard_of = shard_of
        self._replicas = replicas
        self._rounded = set()  # their fp32 values are in a file
        for name, parameter in parameters.items():
            is_half = options.precision in DTYPES and parameter.dtype in DTYPES.values()
            if is_half and not parameter.requires_grad:
                self._rounded.add(name)
        self._pinned = {*pinned, *self._rounded}
        self._addresses = [memory.data_ptr() for memory in self._memories()]
        self._frozen_values: dict[str, Tensor] = {}
        # The index of a parameter, and its checksum after a module has used it, by forward pass
        self._gathered: list[tuple[int, Tensor]] = []
        self._passes: list[tuple[list[tuple[int, Tensor]], Tensor]] = []
        self._dtypes: dict[int, torch.dtype] = {}
        self._hooks: list[RemovableHandle] = []
        self._is_open = False
        self._remaining = STEPS if world.size > 1 or self._pinned else 0

    @property
    def is_on(self) -> bool:
        return self._remaining > 0

    def watch(
        self,
        modules: Mapping[Module, str],
        gathered: Callable[[Module], Iterable[tuple[str, Tensor]]],
    ) -> None:
        """Check weights after the forward pass of each of `modules`, with their names.

        `gathered`: the names within a module, and the tensors, of its parameters that are gathered.
        """
        indices = {name: i for i, name in enumerate(self._parameters)}

        def add(prefix: str, module: Module, *_: Any) -> None:
            if not self._is_open:  # an evaluation
                return
            for name, tensor in gathered(module):
                index = indices[f"{prefix}.{name}".lstrip(".")]
                self._dtypes[index] = tensor.dtype
                self._gathered.append((index, checksum(tensor)))

        for module, prefix in modules.items():
            hook: Any = torch.compiler.disable(partial(add, prefix))
            # Before the hook that frees them
            self._hooks.append(module.register_forward_hook(hook, prepend=True))

    def begin_pass(self) -> None:
        """Call before each forward pass of a step."""
        if not self.is_on:
            return
        self._is_open = True
        for name in self._rounded - self._frozen_values.keys():
            self._frozen_values[name] = self._checksum(name)

    def end_pass(self) -> None:
        """Call after each forward pass."""
        self._is_open = False
        if not self._gathered:
            return
        sums = []
        for index, memory in enumerate(self._memories()):
            sums.append(checksum(memory.to(self._dtypes.get(index, memory.dtype))))
        self._passes.append((self._gathered, self._stack(sums)))
        self._gathered = []

    def drop_step(self) -> None:
        """Forget the passes of a step whose gradients are dropped."""
        self._is_open = False
        self._passes = []
        self._gathered = []

    def end_step(self) -> None:
        """Call before each update. Raises the same EngineError on all ranks."""
        if not self.is_on:
            return
        memories = self._memories()
        values = self._stack(map(checksum, memories))
        codes = torch.zeros_like(values)
        indices = {name: i for i, name in enumerate(self._parameters)}
        for name, before in self._frozen_values.items():
            codes[indices[name]] |= self._checksum(name) != before
        for name, part, copy in self._copies():
            expected = checksum(copy.to(part.dtype)).to(part.device)
            codes[indices[name]] |= checksum(part) != expected
        for name, index in indices.items():
            if name in self._pinned and memories[index].data_ptr() != self._addresses[index]:
                codes[index] = _MOVED
            if self._shard_of(self._parameters[name]) is not None:
                values[index] = 0  # each rank has another shard
        self._compare_gathered(codes, values)
        self.drop_step()
        self._remaining -= 1
        if not self.is_on:
            for hook in self._hooks:
                hook.remove()
            self._hooks.clear()
        numbers = self._world.maximum(torch.stack([codes, values, -values])).tolist()
        for name, code, largest, smallest in zip(self._parameters, *numbers, strict=True):
            if code or largest != -smallest:
                raise EngineError(self._describe(name, code, is_equal=largest == -smallest))

    def _compare_gathered(self, codes: Tensor, values: Tensor) -> None:
        """Add what changed between a shard and what modules used of it."""
        for gathered, of_shards in self._passes:
            expected = self._world.sum(of_shards)
            indices = [index for index, _ in gathered]
            sums = self._stack(value for _, value in gathered)
            is_changed = sums * self._replicas != expected[indices]
            for index, value, changed in zip(indices, sums, is_changed, strict=True):
                codes[index] |= changed.to(codes)
                values[index] = torch.where(changed, value, values[index])

    def _describe(self, name: str, code: int, *, is_equal: bool) -> str:
        is_trained = self._parameters[name].requires_grad
        is_moved = code == _MOVED

        def can_train(entry: Entry, processes: int) -> bool:
            if processes > 1 and not is_equal:
                return False
            if entry.placement.weights != "replicated":
                return False
            keeps = not entry.has_fp32_copies
            if is_moved:  # a sharded optimizer sends updated weights from memory of its own
                keeps = entry.placement.optimizer == "replicated"
            return keeps or not is_trained

        if is_moved:
            what = f"replaces the memory of the parameter '{name}'"
        else:
            what = f"changes the parameter '{name}'"
        if not is_equal:
            what += ", on each process in another way"
        able = engines_that(can_train, self._world.size)
        if name in self._rounded:
            able = f"with  --precision fp32  {able}"
        return f"a forward pass {what}, which this engine loses; engines that train it: {able}"

    def _memories(self) -> list[Tensor]:
        """The memory of this rank that holds each parameter, or its shard."""
        memories = []
        for parameter in self._parameters.values():
            shard = self._shard_of(parameter)
            memories.append(parameter.detach() if shard is None else shard)
        return memories

    def _checksum(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        shard = self._shard_of(parameter)
        return checksum(parameter if shard is None else shard)

    def _stack(self, sums: Iterable[Tensor]) -> Tensor:
        return torch.stack([value.to(self._world.device) for value in sums])


def checksum(tensor: Tensor) -> Tensor:
    """The sum of the bits of `tensor` as whole numbers modulo 2**64; the sums of parts add up."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for part in stored(tensor):
        bits = part.detach().reshape(-1).view(_WHOLE_NUMBERS[part.itemsize])
        for piece in bits.split(_CHUNK):
            total += piece.sum(dtype=torch.int64)
    return total
