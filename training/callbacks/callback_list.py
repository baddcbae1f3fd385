"""A list of callbacks that acts as one: it forwards every call and joins requested actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, EvalResult, Outcome, Step, StepMetrics

if TYPE_CHECKING:
    from models.base import Predictions
    from training.train_plan import TrainPlan


class CallbackList(Callback):
    """Calls each of `callbacks` in order, and joins the actions that they request."""

    def __init__(self, callbacks: Sequence[Callback]):
        self._callbacks = list(callbacks)
        # Called after every update: those that would do nothing are omitted.
        self._steps = [c.step for c in callbacks if type(c).step is not Callback.step]
        self._requested = [c.requested for c in callbacks if type(c).requested is not Callback.requested]

    def start(self, train_plan: TrainPlan) -> None:
        self._each("start", train_plan)

    def step(self, step: Step) -> Action:
        return _joined(on_step(step) for on_step in self._steps)

    def requested(self) -> Action:
        return _joined(requested() for requested in self._requested)

    def logged(self, metrics: StepMetrics) -> None:
        self._each("logged", metrics)

    def evaluated(self, result: EvalResult) -> Action:
        return _joined(self._each("evaluated", result))

    def predicted(self, predictions: Predictions, step: int) -> None:
        self._each("predicted", predictions, step)

    def sampled(self, predictions: Predictions, when: str, step: int) -> None:
        self._each("sampled", predictions, when, step)

    def throttled(self, available: Action) -> None:
        self._each("throttled", available)

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        self._each("saved", folder, step, seconds)

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        self._each("event", kind, facts)

    def _each(self, name: str, *given: object) -> list[Action | None]:
        return [getattr(callback, name)(*given) for callback in self._callbacks]

    def end(self, outcome: Outcome) -> None:
        with ExitStack() as stack:
            for callback in reversed(self._callbacks):
                stack.callback(callback.end, outcome)


def _joined(requests: Iterable[Action | None]) -> Action:
    joined = Action.NOTHING
    for action in requests:
        if action:  # rarely; joining flags costs more than this check
            joined |= action
    return joined
