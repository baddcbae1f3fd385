"""Why a run ends: status, reason and exit code."""

from __future__ import annotations

from dataclasses import dataclass

from gearshift.training.callbacks.base import Action, Status

DONE = 0
FAILED = 1
RUN_AGAIN = 75
INTERRUPTED = 130


class WorkerDied(RuntimeError):
    """A data-loader worker died; the message names it, how it died, and the free memory."""


@dataclass(frozen=True)
class StopReason:
    """Why a run takes no more steps."""

    status: Status
    reason: str
    exit_code: int
    fault: str | None = None
    """As Outcome.fault."""

    @property
    def is_resumable(self) -> bool:
        """Another process takes the remaining steps: the state must be saved."""
        return self.exit_code in (RUN_AGAIN, INTERRUPTED)


FINISHED = StopReason("completed", "all steps taken", DONE)
REPLAYED = StopReason("stopped", "reached the step to replay to", DONE)


def requested(actions: Action) -> StopReason | None:
    """The stop reason in the agreed `actions`; None: the run continues."""
    if Action.INTERRUPT in actions:
        return StopReason("stopped", "interrupted by Ctrl-C", INTERRUPTED)
    if Action.SIGNAL in actions:
        return StopReason("stopped", "stopped by a signal", RUN_AGAIN)
    if Action.LIMIT_EXCEEDED in actions:
        return StopReason("stopped", "a resource limit is exceeded", RUN_AGAIN)
    if Action.STOP in actions:
        return StopReason("completed", "stopped by a callback", DONE)
    return None


def completed(reason: str) -> StopReason:
    """The run ends early, and as it should."""
    return StopReason("completed", reason, DONE)


def failed(reason: str, fault: str | None = None) -> StopReason:
    """The program or the run failed; `fault` as Outcome.fault."""
    return StopReason("failed", reason, FAILED, fault)
