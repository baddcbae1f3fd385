"""The time a rank computes in forward passes, without waiting for other ranks."""

from __future__ import annotations

from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any

from training.clock import Clock, HostClock, clock_of

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine

MOST_SPANS = 2048
"""Timed passes per logged step at most, which bounds the events of a device."""


class ForwardTimer:
    """A context that times the forward passes of training within it.

    Backward passes are left out: they exchange gradients, and a rank waits there for the slowest.
    A slow processor, device or memory is slow in forward passes, too. Under an engine that gathers
    weights, the modules with weights of their own are timed one by one, without what comes between.
    """

    def __init__(self) -> None:
        self._clock: Clock = HostClock()
        self._spans: list[tuple[Any, Any]] = []
        self._passes = 0
        self._by_module = self._is_on = self._is_open = False
        self._begin: Any = None

    def start(self, engine: Engine, module: Module) -> None:
        """Time the passes of `module` from now on, if its own time can be separated."""
        self._clock = clock_of(engine.world.device) or self._clock
        self._by_module = engine.gathers_weights
        self._is_on = True
        if not self._by_module:
            return
        if any(part._compiled_call_impl is not None for part in module.modules()):
            self._is_on = False  # hooks would cut its graph
            return
        for part in module.modules():
            if not any(part.children()) and any(True for _ in part.parameters(recurse=False)):
                # After the hooks that gather weights, and before those that free them.
                part.register_forward_pre_hook(self._enter_module)
                part.register_forward_hook(self._leave_module, prepend=True)

    def __enter__(self) -> None:
        if not self._is_on or len(self._spans) >= MOST_SPANS:
            return
        self._is_open = True
        if not self._by_module:
            self._begin = self._clock.mark()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_open:
            self._is_open = False
            self._passes += 1
            if not self._by_module:
                self._spans.append((self._begin, self._clock.mark()))

    def take(self) -> float | None:
        """Mean seconds of a pass since the last call; None: nothing was timed."""
        spans, passes = self._spans, self._passes
        self._spans, self._passes = [], 0
        if not spans:
            return None
        seconds = sum(self._clock.seconds(begin, end) for begin, end in spans)
        for mark in chain.from_iterable(spans):
            self._clock.release(mark)
        return seconds / passes

    def _enter_module(self, module: Module, inputs: Any) -> None:
        if self._is_open:
            self._begin = self._clock.mark()

    def _leave_module(self, module: Module, inputs: Any, output: Any) -> None:
        if self._is_open:
            self._spans.append((self._begin, self._clock.mark()))
