"""The hooks of a run as one: each is told, and what they ask is joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, EvalResult, Outcome, Step, StepMetrics
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from models.base import Predictions


class CallbackList(Callback):
    """Tells each of `hooks`, in their order, what it is told itself."""

    def __init__(self, callbacks: Sequence[Callback]):
        self._hooks = list(callbacks)
        # Told after every update: those that would do nothing are left out.
        self._steps = [
            callback.step for callback in callbacks if type(callback).step is not Callback.step
        ]

    def start(self, train_plan: TrainPlan) -> None:
        for callback in self._hooks:
            callback.start(train_plan)

    def step(self, step: Step) -> Action:
        return _joined(tell(step) for tell in self._steps)

    def logged(self, line: StepMetrics) -> None:
        for callback in self._hooks:
            callback.logged(line)

    def evaluated(self, evaluation: EvalResult) -> Action:
        return _joined(callback.evaluated(evaluation) for callback in self._hooks)

    def predicted(self, predictions: Predictions, step: int) -> None:
        for callback in self._hooks:
            callback.predicted(predictions, step)

    def relieved(self, left: Action) -> Action:
        return _joined(callback.relieved(left) for callback in self._hooks)

    def saved(self, folder: Path, step: int) -> None:
        for callback in self._hooks:
            callback.saved(folder, step)

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        for callback in self._hooks:
            callback.event(kind, facts)

    def end(self, outcome: Outcome) -> None:
        """Every hook is told, also when one of them fails."""
        with ExitStack() as stack:
            for callback in reversed(self._hooks):
                stack.callback(callback.end, outcome)


def _joined(asks: Iterable[Action]) -> Action:
    joined = Action.NOTHING
    for ask in asks:
        if ask:  # rarely; joining flags costs more than looking
            joined |= ask
    return joined
