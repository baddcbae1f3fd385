"""The hooks of a run as one: each is told, and what they ask is joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from training.callbacks.base import Ask, Budget, Evaluation, Hook, Logged, Outcome, Step

if TYPE_CHECKING:
    from models.base import Predictions


class Audience(Hook):
    """Tells each of `hooks`, in their order, what it is told itself."""

    def __init__(self, hooks: Sequence[Hook]):
        self._hooks = list(hooks)
        # Told after every update: those that would do nothing are left out.
        self._steps = [hook.step for hook in hooks if type(hook).step is not Hook.step]

    def start(self, budget: Budget) -> None:
        for hook in self._hooks:
            hook.start(budget)

    def step(self, step: Step) -> Ask:
        return _joined(tell(step) for tell in self._steps)

    def logged(self, line: Logged) -> None:
        for hook in self._hooks:
            hook.logged(line)

    def evaluated(self, evaluation: Evaluation) -> Ask:
        return _joined(hook.evaluated(evaluation) for hook in self._hooks)

    def predicted(self, predictions: Predictions, step: int) -> None:
        for hook in self._hooks:
            hook.predicted(predictions, step)

    def relieved(self, left: Ask) -> Ask:
        return _joined(hook.relieved(left) for hook in self._hooks)

    def saved(self, folder: Path, step: int) -> None:
        for hook in self._hooks:
            hook.saved(folder, step)

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        for hook in self._hooks:
            hook.event(kind, facts)

    def end(self, outcome: Outcome) -> None:
        """Every hook is told, also when one of them fails."""
        with ExitStack() as stack:
            for hook in reversed(self._hooks):
                stack.callback(hook.end, outcome)


def _joined(asks: Iterable[Ask]) -> Ask:
    joined = Ask.NOTHING
    for ask in asks:
        if ask:  # rarely; joining flags costs more than looking
            joined |= ask
    return joined
