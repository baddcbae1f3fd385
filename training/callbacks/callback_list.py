"""A list of callbacks that acts as one: it forwards every call and joins requested actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from gearshift.training.callbacks.base import Action, Callback, Outcome, Step
from gearshift.training.storage import StorageError


def _each(name: str) -> Callable[..., Any]:
    def call(self: CallbackList, *given: object) -> Action:
        return _joined(getattr(callback, name)(*given) for callback in self.callbacks)

    return call


class CallbackList(Callback):
    """Calls each of `callbacks` in order, and joins the actions that they request."""

    def __init__(self, callbacks: Sequence[Callback]):
        self.callbacks = list(callbacks)
        # Called after every update: those that would do nothing are omitted.
        self._steps = [c.step for c in callbacks if type(c).step is not Callback.step]
        self._requested = [
            c.requested for c in callbacks if type(c).requested is not Callback.requested
        ]

    start = _each("start")
    logged = _each("logged")
    evaluated = _each("evaluated")
    predicted = _each("predicted")
    sampled = _each("sampled")
    saved = _each("saved")
    throttled = _each("throttled")
    event = _each("event")

    def step(self, step: Step) -> Action:
        return _joined(on_step(step) for on_step in self._steps)

    def requested(self) -> Action:
        return _joined(requested() for requested in self._requested)

    def end(self, outcome: Outcome) -> None:
        """End each, also after one that fails; a full disk hides no earlier error of a failed run."""
        with (
            suppress(*([StorageError] if outcome.status == "failed" else [])),
            ExitStack() as stack,
        ):
            for callback in reversed(self.callbacks):
                stack.callback(callback.end, outcome)


def _joined(requests: Iterable[Action | None]) -> Action:
    joined = Action.NOTHING
    for action in requests:
        if action:  # rarely; joining flags costs more than this check
            joined |= action
    return joined
