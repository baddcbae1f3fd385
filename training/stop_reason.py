"""How a run can end: its status, the reason in words, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.callbacks.base import Action, Outcome, Status

DONE = 0
FAILED = 1
RUN_AGAIN = 75
INTERRUPTED = 130


@dataclass(frozen=True)
class StopReason:
    """Why a run takes no more steps."""

    status: Status
    reason: str
    exit_code: int

    @property
    def is_resumable(self) -> bool:
        """There are steps left for another process: the state must be saved."""
        return self.exit_code in (RUN_AGAIN, INTERRUPTED)

    def outcome(self, **facts: Any) -> Outcome:
        """It with the numbers of the run, the other fields of Outcome."""
        return Outcome(self.status, self.reason, self.exit_code, **facts)


COMPLETE = StopReason("completed", "all steps are taken", DONE)
REPLAYED = StopReason("stopped", "the step to go to is reached", DONE)


def asked_for(asked: Action) -> StopReason | None:
    """What the agreed asks of hooks make of a run; None: it goes on."""
    if Action.INTERRUPT in asked:
        return StopReason("stopped", "Ctrl-C was pressed", INTERRUPTED)
    if Action.SIGNAL in asked:
        return StopReason("stopped", "a signal asked for it", RUN_AGAIN)
    if Action.PRESSURE in asked:
        return StopReason("stopped", "a limit of the machine is exceeded", RUN_AGAIN)
    if Action.STOP in asked:
        return StopReason("completed", "a hook asked for it", DONE)
    return None


def stopped_early(reason: str) -> StopReason:
    """The metric has stopped improving."""
    return StopReason("completed", reason, DONE)


def reached(step: int, total_steps: int) -> StopReason:
    """The run has gone as far as it was to go; its schedule may go on."""
    if step >= total_steps:
        return COMPLETE
    return StopReason("completed", f"stop.after: step {step} is reached", DONE)


def failed(reason: str) -> StopReason:
    """A fault of the program or the run."""
    return StopReason("failed", reason, FAILED)
