"""A check that all ranks use the same parameters in each step."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import Module, Parameter

from gearshift.engines.base import EngineError, World
from gearshift.engines.rendezvous import wait_for_readers

# How often a rank that waits looks whether another one has said what it has used. With many ranks
# less often: they all ask one store.
_LOOK_S = 1.0
_LOOKS_EACH_S = 32
_ENDS = "no further parameter"
Segments = tuple[int, list[list[int]]]
"""A step, and what a rank used in it."""


class UsedParameters:
    """Compares what ranks use in a step, before they exchange weights or gradients. Collective.

    Engines that shard pair what ranks send by its order: ranks that use different modules would mix
    weights or gradients, hang or crash. What a rank uses is cut into segments, each of which ends
    before something is exchanged. As long as a segment equals that of the step before, in which all
    ranks were equal, nothing is sent. Where it differs, the rank waits until all others say the
    same in the store. A rank that waits for this one in a collective says there, from a thread,
    what it has used; then the ranks differ, and this one raises EngineError.

    Without a store, or with one rank, it does nothing.
    """

    def __init__(self, world: World, model: Module, gathers: Callable[[Module], bool]):
        """`gathers`: whether the parameters of a module are gathered before its forward pass.

        Other modules count once a pass, if their own parameters are trained; inside of compiled
        modules they do not.
        """
        self._world = world
        self._names = [_ENDS, *dict(model.named_parameters())]
        self._index = {p: i for i, p in enumerate(model.parameters(), start=1)}
        self._used: list[int] = []
        self._segments: list[list[int]] = []
        self._expected: list[list[int]] = []
        self._in_pass: set[int] = set()
        self._step = 0
        self._agreed = list[tuple[int, str]]()
        self._said = (-1, 0)
        """The step and its number of segments that this rank has said last."""
        self._read = 0
        self._of_others: dict[int, Segments] = {}
        """What other ranks have said last."""
        self._is_open = False
        self._is_last = False
        self._closed = threading.Event()
        self._store: Any = None  # nothing to compare
        if world.size > 1 and world.store is not None:
            engines = world.store.add(f"engines/{world.rank}", 1)  # of this process, one by one
            self._store = dist.PrefixStore(f"used/{engines}", world.store)
            self._watch(model, gathers)
            threading.Thread(target=self._say_while_waiting, daemon=True).start()

    def _watch(self, model: Module, gathers: Callable[[Module], bool]) -> None:
        compiled: set[Module] = set()
        for module in model.modules():
            if module._compiled_call_impl is not None:
                compiled.update(module.modules())
        for module in model.modules():
            ends = gathers(module)
            trained = [p for p in module.parameters(recurse=False) if p.requires_grad]
            if not trained and ends:
                trained = [*module.parameters()]
            if not trained or (module in compiled and not ends):
                continue
            self._names.append(self._names[self._index[trained[0]]])
            hook: Any = partial(self._enter, len(self._names) - 1, ends)
            if module in compiled:  # elsewhere it would only take time
                hook = torch.compiler.disable(hook)
            module.register_forward_pre_hook(hook, prepend=True)  # before what gathers

    def _enter(self, index: int, ends: bool, *_: Any) -> None:
        if not self._is_open:
            return
        if ends or index not in self._in_pass:
            self._in_pass.add(index)
            self._used.append(index)
        if ends:
            self.end_segment()

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around the forward and the backward pass of a micro-batch."""
        if self._is_last:
            self._expected = self._segments
            self._segments = []
            self._step += 1
            self._used = []  # of gradients that were dropped
        self._is_last = last
        self._is_open = True
        self._in_pass.clear()
        try:
            with self.exchange():
                yield
        finally:
            self._is_open = False

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Inside, an error of a collective becomes an EngineError if ranks differ."""
        try:
            yield
        except RuntimeError as error:
            difference = self._difference()
            if difference is None:
                raise
            raise EngineError(difference) from error

    def end_forward(self) -> None:
        """Call before each backward pass."""
        self._used.append(0)
        self.end_segment()

    def add_gradients(self, reached: Iterable[Parameter]) -> None:
        """Add the parameters that got a gradient, in an order that must be the same on all."""
        self._used += [self._index[parameter] for parameter in reached]

    def close(self) -> None:
        self._closed.set()

    def end_segment(self) -> None:
        """Call before an update exchanges anything."""
        segment = self._used
        position = len(self._segments)
        self._used = []
        if self._store is None:
            return
        self._segments.append(segment)
        if self._expected[position : position + 1] != [segment]:
            self._agree(position, segment)

    def _agree(self, position: int, segment: Sequence[int]) -> None:
        digest = hashlib.sha256(repr(segment).encode()).hexdigest()[:16]
        key = f"{self._step}/{position}/{digest}"
        self._store.add(key, 1)
        began = time.monotonic()
        looked = began
        look_s = max(_LOOK_S / 4, self._world.size / _LOOKS_EACH_S)
        limit_s = self._store.timeout.total_seconds()
        while self._store.add(key, 0) < self._world.size:
            now = time.monotonic()
            if now - looked > look_s:
                self._say()
                difference = self._difference()
                if difference is not None:
                    wait_for_readers(self._store, self._world.rank, self._world.size, 3 * _LOOK_S)
                    raise EngineError(difference)
                self._world.check_peers()
                looked = now
            if now - began > limit_s:
                raise TimeoutError(f"rank {self._world.rank} waited {limit_s:g} s for other ranks")
            time.sleep(min(look_s / 5, (now - began) / 8))  # wait: prints each time-out
        self._agreed.append((self._step, key))
        while self._world.rank == 0 and self._agreed[0][0] < self._step - 1:  # all have read it
            _, old = self._agreed.pop(0)
            self._store.delete_key(old)

    def _say(self) -> None:
        """Say once what this rank has used in this step; one counter tells that somebody has."""
        said = (self._step, len(self._segments))
        if said == self._said:
            return
        self._said = said
        text = json.dumps([self._world.rank, self._step, self._segments[: said[1]]])
        number = self._store.add("said", 1)
        self._store.set(f"said/{number}", text)

    def _say_while_waiting(self) -> None:
        before = (-1, 0)
        while not self._closed.wait(_LOOK_S):
            now = (self._step, len(self._segments))
            if now == before and self._segments:
                try:
                    self._say()
                except (dist.DistError, RuntimeError):
                    return  # the rank with the store has ended
            before = now

    def _difference(self) -> str | None:
        """Where another rank differs from this one in this step; None: not known."""
        if self._store is None:
            return None
        try:
            while self._read < self._store.add("said", 0):
                key = f"said/{self._read + 1}"
                if not self._store.check([key]):
                    break  # it is being written
                self._read += 1
                rank, step, segments = json.loads(self._store.get(key))
                self._of_others[rank] = (step, segments)
        except (dist.DistError, RuntimeError):  # the rank with the store has ended
            pass
        for rank, (step, segments) in self._of_others.items():
            if step == self._step:
                for here, there in zip(self._segments, segments, strict=False):
                    if here != there:
                        return self._describe(here, there, rank)
        return None

    def _describe(self, here: Sequence[int], there: Sequence[int], rank: int) -> str:
        pairs = zip([*here, 0], [*there, 0], strict=False)
        index, other_index = next((a, b) for a, b in pairs if a != b)
        names = {self._world.rank: self._names[index], rank: self._names[other_index]}
        first, second = sorted(names)
        return (
            f"ranks use different parameters in one step: rank {first} uses {names[first]} where "
            f"rank {second} uses {names[second]}; this engine cannot average them; use engine ddp"
        )
