"""A check of what forward passes do to parameters, in the first steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.utils.hooks import RemovableHandle

from gearshift.engines.base import EngineError, Options, World
from gearshift.engines.catalog import Entry
from gearshift.engines.parameters import engines_that
from gearshift.engines.precision import DTYPES
from gearshift.engines.state import IntervalOf, full_interval, stored

STEPS = 2
"""Steps that are checked: a change that follows an update is seen in the second one."""
_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 2**22
"""Elements that are summed at once: each is copied to 8 bytes."""
_MOVED = 2
_REPLACED = 3


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
        sharded: Collection[str] = (),
        interval_of: IntervalOf = full_interval,
    ):
        """Call when the parameters have their final memory.

        `pinned`: parameters that the engine expects there. `copies`: names, parts of the weights,
        and the copies that overwrite them. `sharded`: parameters of which each rank has another
        interval, that of `interval_of`.
        """
        self._world = world
        self._parameters = parameters
        self._copies = copies
        self._sharded = sharded
        self._interval_of = interval_of
        self._index = {name: index for index, name in enumerate(parameters)}
        halves = DTYPES.values() if options.precision in DTYPES else ()
        self._rounded = {  # their fp32 values are in a file
            name for name, p in parameters.items() if p.dtype in halves and not p.requires_grad
        }
        self._before: dict[str, Tensor] = {}
        """The checksums of those that are rounded."""
        pinned = {*pinned, *self._rounded}
        self._addresses = {name: self._memory(name).data_ptr() for name in pinned}
        self._hooks: list[RemovableHandle] = []
        self._remaining = STEPS if world.size > 1 or pinned else 0
        self.drop_step()

    def watch(
        self,
        modules: Iterable[Module],
        gathered: Callable[[Module], Iterable[tuple[str, Tensor]]],
    ) -> None:
        """Check weights after the forward pass of each of `modules`.

        `gathered`: the names and full tensors of the parameters that are gathered for a module.
        Others that are in their place before it, as by torch.func.functional_call, are lost.
        """
        entries: dict[str, Tensor] = {}

        def note(module: Module, *_: Any) -> None:
            if self._is_open:
                entries.update(gathered(module))

        @torch.no_grad()
        def compare(module: Module, *_: Any) -> None:
            if not self._is_open:  # an evaluation
                return
            for name, tensor in gathered(module):
                parameter = self._parameters[name]
                if entries.pop(name, tensor) not in {tensor, parameter}:
                    self._codes[self._index[name]] = _REPLACED
                start, shard = self._interval_of(parameter)
                self._compare(name, tensor.reshape(-1)[start:][: shard.numel()], shard)
                self._sums[self._index[name]] += checksum(tensor)

        # Before the hooks that gather and that free them
        for module in modules:
            before = module.register_forward_pre_hook(torch.compiler.disable(note), prepend=True)
            hook: Any = torch.compiler.disable(compare)
            after = module.register_forward_hook(hook, prepend=True)
            self._hooks += [before, after]

    def begin_pass(self) -> None:
        """Call before each forward pass of a step."""
        self._is_open = self._remaining > 0
        if self._is_open and not self._before:
            self._before = {name: checksum(self._memory(name)) for name in self._rounded}

    def drop_step(self) -> None:
        """Forget the passes of a step whose gradients are dropped."""
        self._is_open = False
        self._sums = torch.zeros(
            len(self._parameters), dtype=torch.int64, device=self._world.device
        )
        self._codes = torch.zeros_like(self._sums)

    def end_step(self) -> None:
        """Call before each update. Raises the same EngineError on all ranks."""
        if not self._remaining:
            return
        for name, before in self._before.items():
            self._codes[self._index[name]] |= checksum(self._memory(name)) != before
        for name, part, copy in self._copies():
            self._compare(name, part, copy)
        for name, address in self._addresses.items():
            if self._memory(name).data_ptr() != address:
                self._codes[self._index[name]] = _MOVED
        for name in self._index.keys() - self._sharded:
            self._sums[self._index[name]] = checksum(self._memory(name))
        numbers = self._world.maximum(torch.stack([self._codes, self._sums, -self._sums])).tolist()
        self.drop_step()
        self._remaining -= 1
        if not self._remaining:
            for hook in self._hooks:
                hook.remove()
        for name, code, largest, smallest in zip(self._parameters, *numbers, strict=True):
            if code or largest != -smallest:
                raise EngineError(self._describe(name, code, largest == -smallest))

    def _compare(self, name: str, part: Tensor, expected: Tensor) -> None:
        self._codes[self._index[name]] |= checksum(part) != checksum(expected.to(part))

    def _describe(self, name: str, code: int, is_equal: bool) -> str:
        is_trained = self._parameters[name].requires_grad
        is_moved = code == _MOVED

        def can_train(entry: Entry, processes: int) -> bool:
            if entry.placement.weights != "replicated" or not (is_equal or processes == 1):
                return False
            if code == _REPLACED:
                return True
            if is_trained and is_moved:  # a sharded optimizer sends weights from its own memory
                return entry.placement.optimizer == "replicated"
            return not (is_trained and entry.has_fp32_copies)

        change = {_MOVED: "replaces the memory of", _REPLACED: "replaces"}.get(code, "changes")
        extent = "" if is_equal else ", on each process in another way"
        able = engines_that(can_train, self._world.size)
        if name in self._rounded:
            able = f"with  --precision fp32  {able}"
        return (
            f"a forward pass {change} the parameter '{name}'{extent}, which this engine loses; "
            f"engines that train it: {able}"
        )

    def _memory(self, name: str) -> Tensor:
        """The memory of this rank that holds a parameter, or its shard."""
        return self._interval_of(self._parameters[name])[1]


def checksum(tensor: Tensor) -> Tensor:
    """The sum of the bits of `tensor` as whole numbers modulo 2**64; the sums of parts add up."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for part in stored(tensor):
        bits = part.detach().reshape(-1).view(_WHOLE_NUMBERS[part.itemsize])
        for piece in bits.split(_CHUNK):
            total += piece.sum(dtype=torch.int64)
    return total
